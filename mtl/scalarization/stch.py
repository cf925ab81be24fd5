"""Smooth Tchebycheff scalarization."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Scalarizer
from mtl.scalarization.checks import check_above

_EPS = 1e-20  # keeps the logarithm finite at a loss of zero, as in the official code


class STCH(Scalarizer):
    """A smooth maximum of the losses, `mu log sum_i exp(y_i / mu)`.

    * `like="paper"`: `y_i = w_i (L_i - z_i)` with a preference `w` (default `1/m`, as in
      TorchJD) and an ideal point `z`.
    * `like="libmtl"`, the official multi-task code: `y_i = w_i log(L_i / nadir_i)` (default
      `w_i = 1`), and the value is multiplied by m. The nadir is the mean of each loss in the last
      part of a warm-up, during which the sum of `log L_i` is minimized.

    Args:
        num_tasks: Number of tasks.
        mu: Smoothness, > 0: towards 0 it becomes the maximum. The paper tries 0.01 to 1; the
            official code has 1.
        like: See above.
        weights: Preference `w`, positive, one number a task.
        ideal: For `paper`: the ideal point `z`, one number a task. Default: zeros.
        nadir: For `libmtl`: a nadir point known in advance, positive; there is no warm-up then.
        warmup_epochs: For `libmtl`: full epochs of warm-up; in the one after them the warm-up goes
            on and the nadir is measured. The official 4 thus change the rule at the sixth epoch.
        warmup_steps: The same in steps: the nadir is the mean over all of them. 0: the first
            loss of each task. Give this or `warmup_epochs`.

    Unlike in the official code the nadir is saved with the model, and tasks may be absent: one that
    was never seen in the warm-up takes its first loss as nadir. Where `on_epoch_start` is never
    called, all steps are in epoch 0. Losses in half precision are combined in float32.

    Raises:
        ConfigError: A loss is negative (`libmtl`).

    References:
        Lin, Zhang, Yang, Liu, Wang, Zhang. Smooth Tchebycheff Scalarization for Multi-Objective
        Optimization. ICML 2024. https://arxiv.org/abs/2402.19078
    """

    weights: Tensor
    ideal: Tensor
    sums: Tensor
    counts: Tensor
    epoch: Tensor
    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        mu: float = 1.0,
        like: Literal["paper", "libmtl"] = "paper",
        weights: Sequence[float] | None = None,
        ideal: Sequence[float] | None = None,
        nadir: Sequence[float] | None = None,
        warmup_epochs: int | None = None,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__()
        if not mu > 0:
            raise ConfigError(f"`mu` should be positive. Got {mu}.")
        if like not in ("paper", "libmtl"):
            raise ConfigError(f"`like` should be 'paper' or 'libmtl'. Got {like!r}.")
        idle = [nadir, warmup_epochs, warmup_steps] if like == "paper" else [ideal]
        if any(value is not None for value in idle):
            names = "`nadir` and warm-up are" if like == "paper" else "`ideal` is"
            raise ConfigError(f"{names} not used with like={like!r}. Leave out or change `like`.")
        if sum(value is not None for value in (nadir, warmup_epochs, warmup_steps)) > 1:
            raise ConfigError("Give one of `nadir`, `warmup_epochs` and `warmup_steps`. Got more.")
        if min(warmup_epochs or 0, warmup_steps or 0) < 0:
            raise ConfigError(
                f"Warm-up should be 0 or more. Got {warmup_epochs} epochs, {warmup_steps} steps."
            )
        self.mu = mu
        self.like = like
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = warmup_steps or 0
        default = 1.0 if like == "libmtl" else 1 / num_tasks
        preference = _vector("weights", weights, num_tasks, default, positive=True)
        self.register_buffer("weights", preference, persistent=False)
        self.register_buffer("ideal", _vector("ideal", ideal, num_tasks, 0.0), persistent=False)
        known = _vector("nadir", nadir, num_tasks, 0.0, positive=True)
        self.register_buffer("sums", known)
        self.register_buffer("counts", torch.full((num_tasks,), float(nadir is not None)))
        self.register_buffer("epoch", torch.tensor(0))
        self.register_buffer("steps", torch.tensor(0))

    def on_epoch_start(self, epoch: int) -> None:
        """Notes the epoch, for the warm-up."""
        self.epoch.fill_(epoch)

    def forward(self, losses: Tensor) -> Tensor:
        """The smooth maximum of the losses, `[k]`."""
        losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
        weights = self.weights[self.present].to(losses)
        if self.like == "paper":
            return self._smooth_maximum(weights * (losses - self.ideal[self.present].to(losses)))
        check_above('STCH with like="libmtl"', losses, 0.0)
        if self._warming_up(losses.detach()):
            return (losses + _EPS).log().sum()
        nadir = (self.sums[self.present] / self.counts[self.present]).to(losses)
        relative = losses / torch.where(nadir > 0, nadir, 1.0)
        return len(losses) * self._smooth_maximum(weights * (relative + _EPS).log())

    def _smooth_maximum(self, values: Tensor) -> Tensor:
        largest = values.detach().max()
        return self.mu * torch.logsumexp((values - largest) / self.mu, 0) + largest

    def _warming_up(self, losses: Tensor) -> bool:
        """Measures the nadir, and says whether the warm-up goes on."""
        if self.warmup_epochs is None:
            warming = measuring = int(self.steps) < self.warmup_steps
        else:
            warming = int(self.epoch) <= self.warmup_epochs
            measuring = int(self.epoch) == self.warmup_epochs
        self.steps += 1
        taken = torch.ones_like(losses, dtype=torch.bool)
        if warming and not measuring:
            return True
        if not measuring:
            taken = self.counts[self.present] == 0  # first seen after the warm-up
        self.sums[self.present] += torch.where(taken, losses, 0.0).to(self.sums)
        self.counts[self.present] += taken.to(self.counts)
        return warming


def _vector(
    name: str,
    values: Sequence[float] | None,
    size: int,
    default: float,
    *,
    positive: bool = False,
) -> Tensor:
    if values is None:
        return torch.full((size,), default)
    if len(values) != size or (positive and not all(value > 0 for value in values)):
        kind = "positive numbers" if positive else "numbers"
        raise ConfigError(f"`{name}` should be {size} {kind}, one a task. Got {values}.")
    return torch.tensor([float(value) for value in values])
