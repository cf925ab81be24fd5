"""Evaluating a step again: same random draws, buffers untouched."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mtl.step import Step


class Replay:
    """Calls `run` again with the random state of its creation and puts back what it changed.

    Args:
        run: Builds the Step with the parameters as they are; it is given the replay itself, for
            the next time, and which tasks are asked for.
        module: Its parameters say which devices draw; its buffers are restored.
    """

    def __init__(
        self, run: Callable[[Replay, Collection[str] | None], Step], module: nn.Module
    ) -> None:
        self._run = run
        self._module = module
        devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
        self._devices = sorted(device.index for device in devices)
        self._cpu_state = torch.get_rng_state()
        self._cuda_states = [torch.cuda.get_rng_state(i) for i in self._devices]

    @property
    def drawn(self) -> bool:
        """Whether the global generators have moved since."""
        if not torch.equal(torch.get_rng_state(), self._cpu_state):
            return True
        now = [torch.cuda.get_rng_state(i) for i in self._devices]
        return any(not torch.equal(a, b) for a, b in zip(now, self._cuda_states, strict=True))

    @cached_property
    def _buffers(self) -> list[tuple[dict[str, Tensor | None], str]]:
        return [(part._buffers, name) for part in self._module.modules() for name in part._buffers]

    def __call__(self, only: Collection[str] | None = None) -> Step:
        """The Step at the present parameters, of all tasks or some."""
        before = [
            (owner, name, buffer, buffer._version, buffer.clone())
            for owner, name in self._buffers
            if (buffer := owner[name]) is not None
        ]
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._cpu_state)
            for index, state in zip(self._devices, self._cuda_states, strict=True):
                torch.cuda.set_rng_state(state, index)
            try:
                return self._run(self, only)
            finally:
                _restore(before)


@torch.no_grad()
def _restore(
    before: list[tuple[dict[str, Tensor | None], str, Tensor, int, Tensor]],
) -> None:
    for owner, name, buffer, version, value in before:
        owner[name] = buffer  # a module may have put another tensor in its place
        # Kernels such as batch normalization's write without a new version. An untouched buffer may
        # be saved in the new graph: writing the same value to `data` leaves its version alone.
        (buffer if buffer._version != version else buffer.data).copy_(value)
