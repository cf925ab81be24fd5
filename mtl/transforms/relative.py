"""Losses relative to where they started."""

import torch
from torch import Tensor

from mtl.parts import Transform


class Relative(Transform):
    """`L_i / L_i(0)`: every loss starts at 1, so that a loud task does not drown the others.

    `L_i(0)` is the loss in the first step in which the task has labels, kept in a buffer; where it
    is not positive the loss is left as it is.

    Args:
        num_tasks: Number of tasks.
    """

    elementwise = True
    first: Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.full((num_tasks,), torch.nan))

    def forward(self, losses: Tensor) -> Tensor:
        """Relative losses, `[a] -> [a]`."""
        first = self.first[self.present]
        first = torch.where(first.isnan(), losses.detach().to(first), first)
        self.first[self.present] = first
        return losses / torch.where(first > 0, first, 1.0).to(losses)
