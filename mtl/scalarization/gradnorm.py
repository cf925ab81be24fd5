"""Gradient normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.parts import Combiner, Needs
from mtl.scalarization.adam import TaskAdam
from mtl.scalarization.checks import check_above

if TYPE_CHECKING:
    from mtl.engine import Combined, Objectives

_FLOOR = 1e-6


class GradNorm(Combiner):
    """Weights learned so that weighted gradients have like norms, larger for slow tasks.

    With gradient norms `n_i`, `G_i = w_i n_i`, and the rate `r_i = R_i / mean R`,
    `R_i = L_i / L_i(0)`, Adam takes a step on the weights along the gradient of
    `sum_i |G_i - mean(G) r_i^alpha|` (Eq. 2; the target held constant), and they are scaled to
    sum m. The model's step is along `sum_i w_i L_i` with the weights before that, in the heads as
    well (Algorithm 1).

    Args:
        num_tasks: Number of tasks.
        alpha: Strength of the pull towards a common rate, 0 or more; the paper's 1.5 for tasks
            that differ in difficulty, 0.12 for alike ones.
        lr: Adam's step size for the weights, > 0; the paper's 0.025.
        initial_losses: `L_i(0)`, positive, one number a task; the paper advises `log C` for a
            classifier of C classes. Default: each task's first loss.
        like: `paper`; or `libmtl`: `w = m softmax(s)`, Adam moves `s`, the first epoch has weights
            of one and gives its mean losses as `L(0)`, and heads follow their own loss. LibMTL
            moves `s` with the model's optimizer, and takes norms by all shared parameters
            (`balancer.level=parameters`).

    The paper takes the norms at the weights of the last shared layer. Here they are of the
    gradients that the balancer's `level` says, for any backbone, without a layer to name: the
    preset takes the representation, where that layer ends. The gradient by the layer's weights is
    the sum over samples of the gradients there, times what the layer got, which is the same for all
    tasks. `level: parameters` takes all shared parameters. Weights stay positive (the paper
    leaves it open; a step could take a small one below zero). Absent tasks keep their weight; those
    present are scaled to the sum that they had.

    Raises:
        ConfigError: A loss is negative.

    References:
        Chen, Badrinarayanan, Lee, Rabinovich. GradNorm: Gradient Normalization for Adaptive Loss
        Balancing in Deep Multitask Networks. ICML 2018. https://arxiv.org/abs/1711.02257
    """

    needs: ClassVar[Needs] = Needs.GRAMIAN
    head_grad: ClassVar[str] = "weighted"

    initial_losses: Tensor
    counts: Tensor
    logits: Tensor
    weights: Tensor
    epoch: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        alpha: float = 1.5,
        lr: float = 0.025,
        initial_losses: Sequence[float] | None = None,
        like: Literal["paper", "libmtl"] = "paper",
    ) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ConfigError(f"`alpha` should be 0 or more. Got {alpha}.")
        if like not in ("paper", "libmtl"):
            raise ConfigError(f"`like` should be 'paper' or 'libmtl'. Got {like!r}.")
        if initial_losses is not None and (
            len(initial_losses) != num_tasks or not all(loss > 0 for loss in initial_losses)
        ):
            raise ConfigError(
                f"`initial_losses` should be {num_tasks} positive numbers, one a task. Got "
                f"{initial_losses}."
            )
        self.alpha = alpha
        self.like = like
        if like == "libmtl":
            self.head_grad = "own"  # type: ignore[misc]
        self.adam = TaskAdam(num_tasks, lr=lr)
        initial = [0.0] * num_tasks if initial_losses is None else map(float, initial_losses)
        self.register_buffer("initial_losses", torch.tensor(list(initial)))
        self.register_buffer("counts", torch.full((num_tasks,), float(initial_losses is not None)))
        self.register_buffer("logits", torch.zeros(num_tasks))
        self.register_buffer("weights", torch.ones(num_tasks))
        self.register_buffer("epoch", torch.tensor(0))

    def on_epoch_start(self, epoch: int) -> None:
        """Notes the epoch, for `like="libmtl"`."""
        self.epoch.fill_(epoch)

    def combine(self, objectives: Objectives) -> Combined:
        """Weighs the gradients, then moves the weights."""
        losses = objectives.values.detach()
        check_above("GradNorm", losses, 0.0)
        first_epoch = self.like == "libmtl" and int(self.epoch) == 0
        self._note(losses, every=first_epoch)
        if first_epoch:
            return objectives.minimize(objectives.values.sum())
        norms = objectives.gramian.diagonal().clamp_min(0).sqrt()
        combined = objectives.weigh(self.weights[self.present].clone())
        self._learn(norms, self._rates(losses))
        return combined

    def _note(self, losses: Tensor, *, every: bool) -> None:
        """Takes up initial losses: the first of each task, or the mean over an epoch."""
        counts, means = self.counts[self.present], self.initial_losses[self.present]
        open_ = torch.ones_like(counts, dtype=torch.bool) if every else counts == 0
        counts = counts + open_.to(counts)
        update = (losses.to(means) - means) / counts
        self.initial_losses[self.present] = means + torch.where(open_, update, 0.0)
        self.counts[self.present] = counts

    def _rates(self, losses: Tensor) -> Tensor:
        """Inverse training rates relative to their mean, `[a]`."""
        initial = self.initial_losses[self.present].to(losses)
        ratios = torch.where(initial > 0, losses / torch.where(initial > 0, initial, 1.0), 1.0)
        mean = ratios.mean()
        return torch.where(mean > 0, ratios / torch.where(mean > 0, mean, 1.0), 1.0)

    def _learn(self, norms: Tensor, rates: Tensor) -> None:
        """One step of Adam on the weights of the present tasks."""
        weights = self.weights[self.present].to(norms)
        scaled = weights * norms
        targets = scaled.mean() * rates.to(norms) ** self.alpha
        gradient = torch.sign(scaled - targets) * norms
        if self.like == "paper":
            total = weights.sum()
            self.adam.update(self.weights, gradient, self.present)
            moved = self.weights[self.present].clamp_min(_FLOOR)
            self.weights[self.present] = moved * (total.to(moved) / moved.sum())
            return
        shares = weights / weights.sum()
        gradient = weights * (gradient - (shares * gradient).sum())
        self.adam.update(self.logits, gradient, self.present)
        self.weights.copy_(len(self.weights) * self.logits.softmax(0))
