"""Ranges of the estimators' parameters, and the paper's choice of them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from mtl.errors import ConfigError

COUNTS = {
    "n_shared": 0,
    "n_gated": 0,
    "n_task": 0,
    "max_depth": 1,
    "max_depth_task": 1,
    "min_samples_leaf": 1,
    "min_samples_leaf_task": 1,
    "max_bins": 2,
    "max_bins_task": 2,
    "n_iter_no_change": 1,
}
"""Whole numbers and the least allowed."""

POSITIVE = ("learning_rate", "gate_learning_rate", "huber_delta")
NOT_NEGATIVE = ("l2", "l2_task", "gate_spread", "outlier_effect")
SHARES = ("subsample", "max_features")
CHOICES = {
    "leaf": ("paper", "newton"),
    "init": ("prior", "zero"),
    "gate_step": ("gradient", "newton"),
    "unknown_task": ("shared", "error"),
    "loss": ("squared_error", "absolute_error", "huber"),
}
LARGEST = {"max_depth": 12, "max_depth_task": 12, "max_bins": 65534, "max_bins_task": 65534}

PAPER = {
    "n_shared": 50,
    "n_gated": 50,
    "n_task": 50,
    "learning_rate": 0.1,
    "max_depth": 1,
    "max_depth_task": 1,
    "min_samples_leaf": 1,
    "min_samples_leaf_task": 1,
    "l2": 0.0,
    "l2_task": 0.0,
    "max_bins_task": 255,
    "leaf": "paper",
    "init": "zero",
    "scale_target": False,
    "gate_step": "gradient",
}


def check_parameters(estimator: Any) -> None:
    """Raises ConfigError, a ValueError, for the first parameter out of its range."""
    values = estimator.get_params(deep=False)
    for name, value in values.items():
        expected = _expected(name, value)
        if expected:
            raise ConfigError(f"{name}={value!r}: expected {expected}.")


def _expected(name: str, value: Any) -> str | None:
    """What is expected where the value is not that."""
    if name in CHOICES:
        fits, text = value in CHOICES[name], f"one of {', '.join(map(repr, CHOICES[name]))}"
    elif name in COUNTS:
        most = LARGEST.get(name)
        fits = isinstance(value, Integral) and not isinstance(value, bool)
        fits = fits and value >= COUNTS[name] and (most is None or value <= most)
        text = f"a whole number from {COUNTS[name]}" + (f" to {most}" if most else "")
    elif name == "gate_learning_rate" and value is None:
        return None
    elif name in POSITIVE:
        fits, text = _is_number(value) and value > 0, "a number above 0"
    elif name in NOT_NEGATIVE:
        fits, text = _is_number(value) and value >= 0, "a number not below 0"
    elif name in SHARES:
        fits, text = _is_number(value) and 0 < value <= 1, "a share above 0 and up to 1"
    elif name in ("validation_fraction", "outlier_gate"):
        fits, text = _is_number(value) and 0 < value < 1, "a share between 0 and 1"
    else:
        return None
    return None if fits else text


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
