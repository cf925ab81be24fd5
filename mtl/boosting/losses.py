"""Losses of boosting: negative gradients and curvatures at raw predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logsumexp, softmax

Floats = NDArray[np.float64]

_SMALL = 1e-3
_REWEIGHTINGS = 50


class Loss(ABC):
    """A loss l(y, H) of targets [K, n] at raw predictions H [K, n]; class numbers are [1, n]."""

    @abstractmethod
    def residual(self, y: Floats, raw: Floats) -> Floats:
        """Negative gradient -dl/dH [K, n]."""

    @abstractmethod
    def curvature(self, y: Floats, raw: Floats) -> Floats | None:
        """A positive curvature [K or 1, n] for Newton leaves; None stands for one everywhere.

        Where the second derivative is no help (absolute error, the linear part of Huber's), that
        of the parabola which touches the loss from above: leaves become reweighted means.
        """

    @abstractmethod
    def values(self, y: Floats, raw: Floats) -> Floats:
        """Loss of every row [n]."""

    @abstractmethod
    def start(self, y: Floats, weight: Floats) -> Floats:
        """The constant prediction [K] with the least loss."""


class SquaredError(Loss):
    """l = (y - H)^2 / 2, summed over outputs."""

    def residual(self, y: Floats, raw: Floats) -> Floats:
        """Y - H."""
        return y - raw

    def curvature(self, y: Floats, raw: Floats) -> None:  # noqa: ARG002
        """One."""
        return

    def values(self, y: Floats, raw: Floats) -> Floats:
        """Loss of every row [n]."""
        return 0.5 * np.square(y - raw).sum(0)

    def start(self, y: Floats, weight: Floats) -> Floats:
        """The mean."""
        return np.asarray(y @ weight / weight.sum())


class AbsoluteError(Loss):
    """l = |y - H|, summed over outputs; curvature 1 / |y - H|, at most 1000."""

    def residual(self, y: Floats, raw: Floats) -> Floats:
        """The sign of y - H."""
        return np.sign(y - raw)

    def curvature(self, y: Floats, raw: Floats) -> Floats:
        """1 / |y - H|, at most 1000."""
        return 1 / np.maximum(np.abs(y - raw), _SMALL)

    def values(self, y: Floats, raw: Floats) -> Floats:
        """Loss of every row [n]."""
        return np.abs(y - raw).sum(0)

    def start(self, y: Floats, weight: Floats) -> Floats:
        """The median."""
        return _median(y, weight)


@dataclass
class Huber(Loss):
    """l = e^2 / 2 where e = |y - H| <= delta, else delta (e - delta / 2)."""

    delta: float

    def residual(self, y: Floats, raw: Floats) -> Floats:
        """Y - H, clipped to -delta .. delta."""
        return np.clip(y - raw, -self.delta, self.delta)

    def curvature(self, y: Floats, raw: Floats) -> Floats:
        """min(1, delta / |y - H|)."""
        return self.delta / np.maximum(np.abs(y - raw), self.delta)

    def values(self, y: Floats, raw: Floats) -> Floats:
        """Loss of every row [n]."""
        error = np.abs(y - raw)
        linear = self.delta * (error - self.delta / 2)
        return np.where(error <= self.delta, 0.5 * error * error, linear).sum(0)

    def start(self, y: Floats, weight: Floats) -> Floats:
        """From the median, by reweighted means."""
        constant = _median(y, weight)
        for _ in range(_REWEIGHTINGS):
            raw = np.repeat(constant[:, None], y.shape[1], axis=1)
            step = self.residual(y, raw) @ weight / (self.curvature(y, raw) @ weight)
            constant = constant + step
        return constant


class BinaryLogLoss(Loss):
    """Cross entropy of class 0 or 1 with one logit H."""

    def residual(self, y: Floats, raw: Floats) -> Floats:
        """Y - p."""
        return y - expit(raw)

    def curvature(self, y: Floats, raw: Floats) -> Floats:  # noqa: ARG002
        """P (1 - p), at least 0.001."""
        probability = expit(raw)
        return np.maximum(probability * (1 - probability), _SMALL)

    def values(self, y: Floats, raw: Floats) -> Floats:
        """Loss of every row [n]."""
        return np.asarray((np.logaddexp(0, raw) - y * raw)[0])

    def start(self, y: Floats, weight: Floats) -> Floats:
        """The logit of the share of class 1."""
        share = y @ weight / weight.sum()
        return np.log(share) - np.log1p(-share)


@dataclass
class MulticlassLogLoss(Loss):
    """Cross entropy with a softmax over K raw outputs."""

    classes: int

    def residual(self, y: Floats, raw: Floats) -> Floats:
        """One-hot y, minus p."""
        return self._one_hot(y) - softmax(raw, axis=0)

    def curvature(self, y: Floats, raw: Floats) -> Floats:  # noqa: ARG002
        """P (1 - p), at least 0.001."""
        probability = softmax(raw, axis=0)
        return np.maximum(probability * (1 - probability), _SMALL)

    def values(self, y: Floats, raw: Floats) -> Floats:
        """Loss of every row [n]."""
        return np.asarray(-log_softmax(raw, axis=0)[y[0].astype(int), np.arange(y.shape[1])])

    def start(self, y: Floats, weight: Floats) -> Floats:
        """Logarithms of the shares."""
        logits = np.log(self._one_hot(y) @ weight)
        return logits - logsumexp(logits)

    def _one_hot(self, y: Floats) -> Floats:
        return (y == np.arange(self.classes)[:, None]).astype(float)


def _median(y: Floats, weight: Floats) -> Floats:
    """Weighted lower median [K] of targets [K, n]."""
    order = np.argsort(y, axis=1, kind="stable")
    cumulative = np.cumsum(weight[order], axis=1)
    middle = (cumulative < cumulative[:, -1:] / 2).sum(1)
    return np.take_along_axis(y, np.take_along_axis(order, middle[:, None], 1), 1)[:, 0]
