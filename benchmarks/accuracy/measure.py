"""Errors of directions over draws."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.families import rows_of
from benchmarks.accuracy.methods import METHODS, Contender
from benchmarks.accuracy.references import Array

_ZERO = 1e-6


@dataclass(frozen=True)
class Result:
    """Errors of a method on draws of a family.

    Attributes:
        method: Name.
        family: Name.
        count: Number of tasks.
        dtype: Of the Jacobian.
        ours: One number a draw that has a reference.
        theirs: The same for TorchJD; empty where it has no such method.
        undefined: Number of draws without a reference.
    """

    method: str
    family: str
    count: int
    dtype: torch.dtype
    ours: Sequence[float]
    theirs: Sequence[float]
    undefined: int

    @property
    def row(self) -> dict[str, object]:
        """For a table."""
        name = str(self.dtype).removeprefix("torch.")
        result: dict[str, object] = {
            "method": self.method,
            "family": self.family,
            "tasks": self.count,
            "jacobian": name,
            "draws": len(self.ours),
            "undefined": self.undefined,
        }
        for who, errors in (("ours", self.ours), ("torchjd", self.theirs)):
            result[f"{who} median"] = f"{statistics.median(errors):.1e}" if errors else ""
            result[f"{who} worst"] = f"{max(errors):.1e}" if errors else ""
        return result


def measure(
    methods: Sequence[str],
    families: Sequence[str],
    counts: Sequence[int],
    dtypes: Sequence[torch.dtype],
    *,
    draws: int | None,
    width: int,
) -> Iterator[Result]:
    """Results in the order of the arguments.

    Args:
        methods: Names in `METHODS`.
        families: Names in `families.FAMILIES`.
        counts: Numbers of tasks.
        dtypes: Of the Jacobian; the reference is that of the rounded entries.
        draws: Seeds 0, 1, ... of each family; `None`: as many as a method has.
        width: Number of columns.
    """
    for dtype in dtypes:
        for name in methods:
            method = METHODS[name]
            seeds = range(method.draws if draws is None else draws)
            for family in families:
                for count in counts:
                    matrices = [rows_of(family, count, s, width).to(dtype) for s in seeds]
                    ours = errors(method.ours, matrices)
                    theirs = [] if method.theirs is None else errors(method.theirs, matrices)
                    yield Result(name, family, count, dtype, ours, theirs, len(seeds) - len(ours))


def errors(contender: Contender, matrices: Sequence[Tensor]) -> list[float]:
    """One number a Jacobian that has a reference."""
    result = []
    for rows in matrices:
        exact = rows.double().numpy()
        weights = contender.reference(exact)
        if weights is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of solvers that stop early
                found = contender.direction(rows).numpy()
            result.append(error(found, weights, exact))
    return result


def error(found: Array, weights: Array, rows: Array) -> float:
    """Distance of a direction from the expected one, after the best positive scaling, relative.

    Infinite for a direction that is not finite.

    Where the expected direction is zero to rounding (`|sum_i w_i g_i| < 1e-6 sum_i |w_i g_i|`), it
    is the length of what was found, relative to the mean length of the gradients.

    Args:
        found: `[n]`.
        weights: Of the reference, `[m]`.
        rows: `[m, n]`.
    """
    if not np.isfinite(found).all():
        return math.inf
    expected, norms = weights @ rows, np.linalg.norm(rows, axis=1)
    length = float(np.linalg.norm(expected))
    if length <= _ZERO * abs(weights) @ norms:
        return float(np.linalg.norm(found) / norms.mean())
    square = float(found @ found)
    scale = max(float(found @ expected), 0.0) / square if square else 0.0
    return float(np.linalg.norm(scale * found - expected)) / length
