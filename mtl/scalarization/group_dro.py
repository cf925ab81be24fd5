"""Group distributionally robust optimization: the worst task counts most."""

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Scalarizer


class GroupDRO(Scalarizer):
    """`sum_t q_t L_t` with `q_t <- q_t exp(eta L_t) / sum_u q_u exp(eta L_u)` before each step.

    The weights follow the largest losses (Algorithm 1): the opposite of damping outliers, so that
    one task of noise takes the whole network.

    Args:
        num_tasks: Number of tasks.
        eta: Step size of the weights, >= 0; 0 is the mean of the losses. The official code has
            0.01.
        hard: Minimize the largest loss alone, `max_t L_t`; the limit of large `eta`.

    Weights are kept as logarithms, in a buffer. A task without labels keeps its weight for later;
    the weights of the others sum to one.

    References:
        Sagawa, Koh, Hashimoto, Liang. Distributionally Robust Neural Networks for Group Shifts.
        ICLR 2020. https://arxiv.org/abs/1911.08731
    """

    log_weights: Tensor

    def __init__(self, num_tasks: int, *, eta: float = 0.01, hard: bool = False) -> None:
        super().__init__()
        if eta < 0:
            raise ConfigError(f"`eta` should be 0 or more. Got {eta}.")
        self.eta = eta
        self.hard = hard
        self.register_buffer("log_weights", torch.zeros(num_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """The weighted sum of the losses, `[k]`."""
        if self.hard:
            return losses.max()
        moved = self.log_weights[self.present] + self.eta * losses.detach().to(self.log_weights)
        self.log_weights[self.present] = moved
        self.log_weights -= self.log_weights.max()
        return moved.softmax(0).to(losses) @ losses
