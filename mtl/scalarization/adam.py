"""Adam on a vector with one entry a task, as a module whose state is saved."""

import torch
from torch import Tensor, nn

from mtl.errors import ConfigError


class TaskAdam(nn.Module):
    """Adam for numbers that a method learns by a rule of its own.

    The same update as `torch.optim.Adam`, but tasks may be absent: every entry counts its own
    steps, and those of absent tasks stay as they are, moments included.

    Args:
        num_tasks: Number of entries.
        lr: Step size, > 0.
        weight_decay: Factor of the entry that is added to its gradient, 0 or more.

    References:
        Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015.
        https://arxiv.org/abs/1412.6980
    """

    first: Tensor
    second: Tensor
    steps: Tensor

    def __init__(self, num_tasks: int, *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        if not lr > 0:
            raise ConfigError(f"`lr` should be positive. Got {lr}.")
        if not weight_decay >= 0:
            raise ConfigError(f"`weight_decay` should be 0 or more. Got {weight_decay}.")
        self.lr = lr
        self.weight_decay = weight_decay
        self.register_buffer("first", torch.zeros(num_tasks))
        self.register_buffer("second", torch.zeros(num_tasks))
        self.register_buffer("steps", torch.zeros(num_tasks))

    @torch.no_grad()
    def update(self, values: Tensor, gradient: Tensor, index: slice | Tensor) -> None:
        """Moves entries against their gradient, in place.

        Args:
            values: All entries, `[num_tasks]`.
            gradient: Of those in `index`, `[a]`.
            index: Which entries move.
        """
        gradient = gradient.to(values) + self.weight_decay * values[index]
        self.steps[index] += 1
        self.first[index] = 0.9 * self.first[index] + 0.1 * gradient
        self.second[index] = 0.999 * self.second[index] + 0.001 * gradient.square()
        first = self.first[index] / (1 - 0.9 ** self.steps[index])
        second = self.second[index] / (1 - 0.999 ** self.steps[index])
        values[index] -= self.lr * first / (second.sqrt() + 1e-8)
