"""Gradient sign dropout."""

import torch
from torch import Tensor

from mtl.aggregation.columns import by_columns
from mtl.errors import ConfigError
from mtl.parts import Aggregator, Stochastic


class GradDrop(Aggregator, Stochastic):
    """At each coordinate, gradients of one sign only; the sign is drawn by their purity (Alg. 1).

    With the purity `P = (1 + sum_i g_i / sum_i |g_i|) / 2` and `u ~ U[0, 1]` for each coordinate,
    positive entries are kept where `P > u` and negative ones elsewhere; the update is the sum
    of what is kept.

    Args:
        leak: Share of the dropped part that passes, in [0, 1]; 0 is the paper's default.
        seed: See `Stochastic`; all processes draw alike.

    The paper and LibMTL apply the rule at the representation: a sign is drawn for each unit, from
    gradients that are multiplied by the activation's sign and summed over the batch, and what it
    decides holds for all samples. Here it acts on each coordinate of the chosen level by itself
    (shared parameters by default, as in TorchJD): a Jacobian has no batch and no activations. At
    the representation that is a draw for each sample. TorchJD has a leak a task.

    References:
        Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov. Just Pick a Sign: Optimizing Deep
        Multitask Models with Gradient Sign Dropout. NeurIPS 2020.
        https://arxiv.org/abs/2010.06808
    """

    columnwise = True

    def __init__(self, *, leak: float = 0.0, seed: int | None = None) -> None:
        super().__init__(seed)
        if not 0 <= leak <= 1:
            raise ConfigError(f"`leak` should be in [0, 1]. Got {leak}.")
        self.leak = leak

    def forward(self, jacobian: Tensor) -> Tensor:
        """Direction `[n]` from the Jacobian `[m, n]`."""
        return by_columns(self._keep, jacobian, self._draw(jacobian))

    def _draw(self, jacobian: Tensor) -> Tensor:
        """A number for each column, the same whatever part of them this process sees."""
        total = jacobian.shape[1] if self.held is None else self.held.total
        draw = jacobian.new_empty(total).uniform_(generator=self.generator(jacobian.device))
        return draw if self.held is None else draw[self.held.columns]

    def _keep(self, rows: Tensor, draw: Tensor) -> Tensor:
        """The sum of the positive or of the negative entries of each column, and the leak."""
        positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
        magnitude = positive - negative
        purity = 0.5 * (1 + (positive + negative) / torch.where(magnitude > 0, magnitude, 1.0))
        chosen = purity > draw
        kept = torch.where(chosen, positive, negative)
        return kept + self.leak * torch.where(chosen, negative, positive)
