"""Lightning's strategy for sharded parameters, with checkpoints like those of any other run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from mtl.sharding import place


class FSDP2Strategy(ModelParallelStrategy):
    """Shards parameters, gradients and the optimizer's state over all processes (`fully_shard`).

    A checkpoint is one file with whole tensors, the same as without sharding: runs resume from it
    in any number of processes and with any strategy. Lightning's own loading fails at what modules
    save beside tensors (counters of random draws) and at optimizers without state.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(save_distributed_checkpoint=False, **kwargs)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lets Lightning call `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """Takes all processes for data parallelism."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads the file, in every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Gives each process its part of every parameter."""
        assert self.lightning_module is not None
        here = self.lightning_module.state_dict()
        state = {
            name: place(value, here[name]) if name in here else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Gives each process its part of what the optimizers remember."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
            parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
            like: dict[int, Tensor] = dict(zip(numbers, parameters, strict=True))
            state = {
                number: {key: place(value, like[number]) for key, value in entries.items()}
                for number, entries in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})
