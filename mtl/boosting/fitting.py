"""Fits the three blocks, each with early stopping of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mtl.boosting.binning import Codes
from mtl.boosting.blocks import Ensemble, Settings, with_task
from mtl.boosting.gates import task_sums
from mtl.boosting.growing import grow
from mtl.boosting.losses import Loss
from mtl.boosting.stumps import LeastSquaresStumps
from mtl.boosting.trees import Growth, Trees

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SEPARATION = 50


@dataclass(frozen=True, eq=False)
class Problem:
    """What is fitted.

    Attributes:
        codes: Binned features of n rows, sorted by task.
        y: Targets [K, n]; class numbers [1, n].
        task: Task numbers 0 .. T-1 [n], ascending, none left out.
        weight: Weights of the rows [n].
        loss: What is minimized.
        start: Constant that the first tree adds to, [K].
    """

    codes: Codes
    y: Floats
    task: Ints
    weight: Floats
    loss: Loss
    start: Floats


def fit(problem: Problem, settings: Settings) -> Ensemble:
    """Fits an ensemble; with early stopping, once more on all rows for the rounds found."""
    ensemble = found = Fitting(problem, settings).run()
    if settings.patience is not None and settings.refit:
        rounds = (len(found.shared), len(found.gated), len(found.own))
        ensemble = Fitting(problem, replace(settings, patience=None, rounds=rounds)).run()
        ensemble.keep_task_rounds(found.task_rounds)
    ensemble.compile(problem.codes.sizes)
    return ensemble


class Fitting:
    """The state of a fit: the ensemble so far and its raw predictions [K, n]."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.codes, self.y, self.task = problem.codes, problem.y, problem.task
        self.loss, self.settings = problem.loss, settings
        self.weight = None if (problem.weight == 1).all() else problem.weight
        self.first = np.flatnonzero(np.diff(self.task, prepend=-1))
        self.held_out = self._hold_out()
        self.rows = None if self.held_out is None else np.flatnonzero(~self.held_out)
        spread = settings.gate_spread if settings.rounds[1] else 0.0
        theta = spread * self._random(0, 0).standard_normal(len(self.first))
        self.ensemble = Ensemble(problem.start, theta, settings.task_as_category)
        self.raw = np.repeat(problem.start[:, None], len(self.codes), axis=1)
        self.difference = np.zeros_like(self.raw)
        self._unit = np.ones((1, len(self.task)))
        self._stumps: dict[bool, LeastSquaresStumps] = {}

    def run(self) -> Ensemble:
        """Runs the blocks one after the other."""
        ensemble = self.ensemble
        del ensemble.shared[self._best(self._shared()) :]
        best = self._best(self._gated())
        del ensemble.gated[best:], ensemble.theta_history[best + 1 :]
        ensemble.theta = ensemble.theta_history[-1]
        ensemble.gate_effect = self._gate_effect()
        ensemble.keep_task_rounds(self._best_of_tasks(self._own()))
        return ensemble

    def _random(self, block: int, iteration: int) -> np.random.Generator:
        """Draws of an iteration do not depend on how many follow or came before."""
        return np.random.default_rng([self.settings.seed, block, iteration])

    def _hold_out(self) -> NDArray[np.bool_] | None:
        """The rows that early stopping looks at: every task's share, up to one row."""
        if self.settings.patience is None:
            return None
        draws = self._random(0, 1).random(len(self.task))
        order = np.lexsort((draws, self.task))
        held_out = np.zeros(len(draws), dtype=bool)
        places = np.arange(len(draws) + 1) * self.settings.held_out + draws[0]
        held_out[order] = np.diff(np.floor(places)) > 0
        return held_out

    def _derivatives(self, raw: Floats) -> tuple[Floats, Floats | None]:
        """Weighted residual [K, n] and the curvature [1 or K, n] that leaves divide by."""
        residual = self.loss.residual(self.y, raw)
        curvature = self.loss.curvature(self.y, raw) if self.settings.newton else None
        if self.weight is None:
            return residual, curvature
        if curvature is None:
            return residual * self.weight, self.weight[None]
        return residual * self.weight, curvature * self.weight

    def _draw(self, block: int, iteration: int, codes: Codes) -> tuple[Ints | None, Ints | None]:
        """The rows and features that an iteration sees; None for all."""
        settings, rows, features = self.settings, self.rows, None
        if settings.subsample == 1 and settings.max_features == 1:
            return rows, features
        random = self._random(block, iteration)
        if settings.subsample < 1:
            rows = np.arange(len(codes)) if rows is None else rows
            rows = rows[random.random(len(rows)) < settings.subsample]
        if settings.max_features < 1:
            count = max(1, round(settings.max_features * len(codes.sizes)))
            features = np.sort(random.choice(len(codes.sizes), count, replace=False))
        return rows, features

    def _grow(
        self,
        block: int,
        iteration: int,
        codes: Codes,
        grad: Floats,
        hess: Floats | None,
        growth: Growth,
        own: bool = False,
    ) -> tuple[Trees, Floats]:
        """Grows the trees of an iteration; returns them and their values [F, K, n]."""
        rows, features = self._draw(block, iteration, codes)
        first = self.first if own else self.first[:1]
        if hess is None and rows is None and features is None and self.weight is None:
            if own not in self._stumps and LeastSquaresStumps.suit(codes, growth, len(first)):
                self._stumps[own] = LeastSquaresStumps(codes, growth, first)
            if own in self._stumps:
                return self._stumps[own].grow(grad)
        trees, leaf = grow(
            codes,
            grad,
            hess,
            growth,
            weight=self.weight,
            rows=rows,
            root=self.task if own else None,
            roots=len(first),
            features=features,
        )
        if own:
            return trees, trees.leaves[self.task, :, leaf[0]].T[None]
        return trees, np.stack([t.take(i, axis=1) for t, i in zip(trees.leaves, leaf, strict=True)])

    def _shared(self) -> Iterator[None]:
        as_category = self.settings.task_as_category
        codes = with_task(self.codes, self.task) if as_category else self.codes
        for i in range(self.settings.rounds[0]):
            grad, hess = self._derivatives(self.raw)
            hess = None if hess is None else hess[None]
            trees, values = self._grow(1, i, codes, grad[None], hess, self.settings.growth)
            self.ensemble.shared.append(trees)
            self.raw = self.raw + values[0]
            yield

    def _gated(self) -> Iterator[None]:
        """Both trees and the gate start from the same predictions (a Jacobi step)."""
        ensemble, settings = self.ensemble, self.settings
        base, theta = self.raw, ensemble.theta
        out, non = np.zeros_like(base), np.zeros_like(base)
        ensemble.theta_history.append(theta)
        gate = expit(theta)[self.task]
        for i in range(settings.rounds[1]):
            share = np.stack([gate, 1 - gate])[:, None]
            grad, hess = self._derivatives(self.raw)
            own_hess = self._gated_curvature(hess, share, i)
            trees, values = self._grow(2, i, self.codes, share * grad, own_hess, settings.growth)
            theta = self._gate_step(theta, grad, hess, self.difference)
            ensemble.gated.append(trees)
            ensemble.theta_history.append(theta)
            out += values[0]
            non += values[1]
            self.difference = out - non
            gate = expit(theta)[self.task]
            self.raw = base + non + gate * self.difference
            yield

    def _gated_curvature(self, hess: Floats | None, share: Floats, i: int) -> Floats | None:
        """Curvatures [2, 1 or K, n] that the leaves of both gated functions divide by.

        With the gated curvature a function learns as fast as the other however few follow it, so
        that rare outliers would never get one of their own: first the gates must separate.
        """
        if self.settings.newton and i >= _SEPARATION:
            return share if hess is None else share * hess
        return None if hess is None else np.broadcast_to(hess, (2, *hess.shape))

    def _gate_step(
        self, theta: Floats, grad: Floats, hess: Floats | None, difference: Floats
    ) -> Floats:
        """The held-out rows do not move the gate."""
        curvature = self._unit if hess is None else hess
        if self.held_out is not None:
            seen = ~self.held_out
            grad, curvature = grad * seen, curvature * seen
        return self.settings.gate_step(theta, grad, curvature, difference, self.first)

    def _gate_effect(self) -> Floats:
        """How much each task [T] would lose with the gate of the median task.

        In units of the mean loss of the constant that the fit starts from.
        """
        gate = expit(self.ensemble.theta)
        moved = (np.median(gate) - gate)[self.task] * self.difference
        start = np.broadcast_to(self.ensemble.start[:, None], self.raw.shape)
        weight = np.ones(len(self.task)) if self.weight is None else self.weight
        worse, best, unit = (
            task_sums(weight * self.loss.values(self.y, raw), self.first)
            for raw in (self.raw + moved, self.raw, start)
        )
        rows = task_sums(weight, self.first)
        total = unit.sum() / rows.sum()
        return (worse - best) / rows / (total if total > 0 else 1.0)

    def _own(self) -> Iterator[None]:
        codes, width = self.codes.merged(self.settings.bins_task)
        for i in range(self.settings.rounds[2]):
            grad, hess = self._derivatives(self.raw)
            hess = None if hess is None else hess[None]
            growth = self.settings.growth_task
            trees, values = self._grow(3, i, codes, grad[None], hess, growth, own=True)
            self.raw = self.raw + values[0]
            self.ensemble.own.append(trees.refined(width, self.codes))
            yield

    def _best(self, block: Iterator[None]) -> int:
        """Runs a block; returns its best number of iterations and goes back to it."""
        held_out, patience = self.held_out, self.settings.patience
        if held_out is None or patience is None:
            return sum(1 for _ in block)
        best, best_loss, kept = 0, self._held_out_loss(held_out)[-1], (self.raw, self.difference)
        for i, _ in enumerate(block, 1):
            now = self._held_out_loss(held_out)[-1]
            if now < best_loss:
                best, best_loss, kept = i, now, (self.raw, self.difference)
            elif i - best >= patience:
                break
        self.raw, self.difference = kept
        return best

    def _best_of_tasks(self, block: Iterator[None]) -> Ints:
        """Runs the task block; returns the best number of iterations [T] of each task.

        Tasks without held-out rows take the number that is best for the sum of the others.
        """
        held_out, patience = self.held_out, self.settings.patience
        if held_out is None or patience is None:
            return np.full(len(self.first), sum(1 for _ in block), dtype=np.int64)
        best_loss = self._held_out_loss(held_out)
        best = np.zeros(len(best_loss), dtype=np.int64)
        for i, _ in enumerate(block, 1):
            now = self._held_out_loss(held_out)
            better = now < best_loss
            best[better], best_loss[better] = i, now[better]
            if (i - best).min() >= patience:
                break
        watched = task_sums(held_out.astype(float), self.first) > 0
        return np.where(watched, best[:-1], best[-1])

    def _held_out_loss(self, held_out: NDArray[np.bool_]) -> Floats:
        """Loss on the held-out rows of each task, and of all of them together: [T + 1]."""
        losses = self.loss.values(self.y, self.raw) * held_out
        if self.weight is not None:
            losses *= self.weight
        by_task = task_sums(losses, self.first)
        return np.append(by_task, by_task.sum())
