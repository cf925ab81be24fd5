"""Constant weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Scalarizer


class ConstantWeights(Scalarizer):
    """A weighted sum of the losses, `sum_i w_i L_i`, with weights that the user chose.

    Args:
        num_tasks: Number of tasks.
        weights: One number a task, in task order, each 0 or more. Default: ones, which is equal
            weighting. A task without labels in a batch leaves its weight out; the others keep
            theirs.

    The weights are used as they are: they need not sum to one (the same in TorchJD's `Constant`).
    They are an option and no state: a resumed run takes them from its configuration.

    References:
        Xin, Ghorbani, Garg, Firat, Gilmer. Do Current Multi-Task Optimization Methods in Deep
        Learning Even Help? NeurIPS 2022 (tuned constant weights as the baseline to beat).
        https://arxiv.org/abs/2209.11379
    """

    weights: Tensor

    def __init__(self, num_tasks: int, *, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        chosen = [1.0] * num_tasks if weights is None else [float(w) for w in weights]
        if len(chosen) != num_tasks or not all(0 <= w < float("inf") for w in chosen):
            raise ConfigError(
                f"`weights` should be {num_tasks} numbers, one a task, each 0 or more. Got "
                f"{weights}."
            )
        self.register_buffer("weights", torch.tensor(chosen), persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Weighs the losses, `[k]`."""
        return (self.weights[self.present].to(losses) * losses).sum()
