"""Gradient sign dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mtl.aggregation.columns import by_columns, over_all_columns
from mtl.errors import ConfigError
from mtl.parts import Aggregator, Stochastic

if TYPE_CHECKING:
    from mtl.engine import Combined, Objectives


class GradDrop(Aggregator, Stochastic):
    """At each coordinate, gradients of one sign only; the sign is drawn by their purity (Alg. 1).

    With the purity `P = (1 + sum_i g_i / sum_i |g_i|) / 2` and `u ~ U[0, 1]` for each coordinate,
    positive entries are kept where `P > u` and negative ones elsewhere; the update is the sum
    of what is kept.

    Args:
        leak: Share of the dropped part that passes, in [0, 1]; 0 is the paper's default.
        like: `torchjd`: the rule acts on each coordinate of the chosen level by itself (shared
            parameters by default; at the representation that is a draw for each sample). `paper`,
            with `level="representation"`: a sign is drawn for each unit of the representation, from
            gradients that are multiplied by the activation's sign and summed over the batch, and
            what it decides about a task holds for all samples; LibMTL does that as well.
        seed: See `Stochastic`; all processes draw alike.

    TorchJD has a leak a task.

    References:
        Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov. Just Pick a Sign: Optimizing Deep
        Multitask Models with Gradient Sign Dropout. NeurIPS 2020.
        https://arxiv.org/abs/2010.06808
    """

    columnwise = True

    def __init__(
        self,
        *,
        leak: float = 0.0,
        like: Literal["paper", "torchjd"] = "torchjd",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not 0 <= leak <= 1:
            raise ConfigError(f"`leak` should be in [0, 1]. Got {leak}.")
        if like not in ("paper", "torchjd"):
            raise ConfigError(
                f"`like` should be paper or torchjd. Got {like!r}. LibMTL's is that of the paper."
            )
        self.leak = leak
        self.like = like

    def combine(self, objectives: Objectives) -> Combined:
        """Follows the direction."""
        if self.like == "torchjd":
            return super().combine(objectives)
        objectives.gramian  # noqa: B018 - raises where a row is not finite
        signs = objectives.representation.sign()
        rows = objectives.columns.view(-1, *signs.shape)  # [m, B, ...]
        units = over_all_columns((rows * signs).sum(1), objectives.held)
        kept = self._signs_of_units(units)
        return objectives.follow((rows * kept[:, None]).sum(0).reshape(-1), held=True)

    def _signs_of_units(self, units: Tensor) -> Tensor:
        """What passes of each task at each unit, `[m, ...]`, from sums over the batch."""
        draw = torch.empty_like(units[0]).uniform_(generator=self.generator(units.device))
        chosen = _purity(units.sum(0), units.abs().sum(0)) > draw
        kept = torch.where(chosen, units > 0, units < 0)
        return self.leak + (1 - self.leak) * kept.to(units)

    def forward(self, jacobian: Tensor) -> Tensor:
        """Direction `[n]` from the Jacobian `[m, n]`."""
        return by_columns(self._keep, jacobian, self._draw(jacobian))

    def _draw(self, jacobian: Tensor) -> Tensor:
        """A number for each column, the same whatever part of them this process sees."""
        total = jacobian.shape[1] if self.held is None else self.held.total
        draw = jacobian.new_empty(total).uniform_(generator=self.generator(jacobian.device))
        return draw if self.held is None else self.held.of(draw)

    def _keep(self, rows: Tensor, draw: Tensor) -> Tensor:
        """The sum of the positive or of the negative entries of each column, and the leak."""
        positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
        chosen = _purity(positive + negative, positive - negative) > draw
        kept = torch.where(chosen, positive, negative)
        return kept + self.leak * torch.where(chosen, negative, positive)


def _purity(total: Tensor, magnitude: Tensor) -> Tensor:
    """Share of the positive part: 1 where all gradients are positive, 0 where all are negative."""
    return 0.5 * (1 + total / torch.where(magnitude > 0, magnitude, 1.0))
