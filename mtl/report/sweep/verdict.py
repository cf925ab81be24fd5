"""Is the difference real? Paired comparisons with the reference, and what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from mtl.report.sweep.comparison import Comparison, Method
from mtl.report.sweep.statistics import Interval, holm, interval, sign_flip

ALPHA = 0.05


@dataclass
class Verdict:
    """A method beside the reference.

    Attributes:
        method: The method.
        reference: Label of the reference.
        unit: What is compared: `delta_p`, or `gain` over the reference.
        differences: Seed -> difference in percentage points, over the seeds that both have.
        p: Two-sided p-value of the exact sign-flip test, with two seeds or more.
        p_holm: The same after Holm's correction for all methods of the comparison.
    """

    method: Method
    reference: str
    unit: str
    differences: dict[int, float] = field(default_factory=dict)
    p: float | None = None
    p_holm: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean difference."""
        return fmean(self.differences.values()) if self.differences else None

    @cached_property
    def interval(self) -> Interval | None:
        """Its bootstrap interval."""
        return interval(list(self.differences.values()))

    @property
    def smallest(self) -> float:
        """The smallest p-value that a test with these seeds can give."""
        return min(1.0, 2 / 2 ** len(self.differences))

    @property
    def sentence(self) -> str:
        """What may be said."""
        name, n = self.method.label, len(self.differences)
        if self.mean is None:
            return f"{name} and {self.reference} have no seed in common, and are not compared."
        size = f"{name} differs from {self.reference} by {self.mean:+.2f} points of {self.unit}"
        if self.p is None or self.p_holm is None or self.interval is None:
            return f"{size} on one seed: whether that is chance cannot be told."
        low, high = self.interval
        size += f" (interval {low:+.2f} to {high:+.2f}, {n} seeds)"
        if self.p_holm <= ALPHA:
            better = "better" if self.mean > 0 else "worse"
            return f"{size}: {better}, p = {self.p_holm:.2g} after Holm's correction."
        if self.smallest > ALPHA:
            return (
                f"{size}. Too few seeds to tell: with {n} the smallest possible p is "
                f"{self.smallest:.2g}."
            )
        alone = f"p = {self.p:.2g}, but " if self.p <= ALPHA else "p = "
        return f"{size}: not told apart, {alone}{self.p_holm:.2g} after Holm's correction."


def judge(comparison: Comparison) -> list[Verdict]:
    """Compares every method with the reference, seed by seed.

    The unit is `delta_p` where there are single-task values, otherwise the same mean of relative
    gains with the reference's own mean in their place.

    Returns:
        One verdict a method, the largest difference first; none without a reference.
    """
    reference = comparison.reference
    if reference is None:
        return []
    unit = "delta_p" if "delta_p" in reference.deltas else "gain"
    base = _scores(reference, unit)
    verdicts = []
    for method in comparison.contenders:
        if method is not reference:
            own = _scores(method, unit)
            differences = {seed: own[seed] - base[seed] for seed in sorted(own.keys() & base)}
            verdicts.append(Verdict(method, reference.label, unit, differences))
    tested = [verdict for verdict in verdicts if len(verdict.differences) > 1]
    p_values = [sign_flip(list(verdict.differences.values())) for verdict in tested]
    for verdict, p, adjusted in zip(tested, p_values, holm(p_values), strict=True):
        verdict.p, verdict.p_holm = p, adjusted
    return sorted(verdicts, key=lambda v: -math.inf if v.mean is None else v.mean, reverse=True)


def conclude(verdicts: Sequence[Verdict], reference: str | None) -> str:
    """The answer in plain sentences, with what limits it."""
    if reference is None:
        return "There is no reference to compare with, hence no verdict."
    if not verdicts:
        return f"There is nothing to compare {reference} with."
    better = [v.method.label for v in verdicts if _told(v) and (v.mean or 0) > 0]
    worse = [v.method.label for v in verdicts if _told(v) and (v.mean or 0) < 0]
    told = [
        f"{verb} than {reference}: {', '.join(names)}."
        for verb, names in (("Better", better), ("Worse", worse))
        if names
    ]
    rest = len(verdicts) - len(better) - len(worse)
    if rest == len(verdicts):
        told = [f"No method can be told from {reference}."]
    elif rest:
        told.append(f"Not to be told from {reference}: {rest} more.")
    return " ".join([*told, _limits(verdicts)])


def _limits(verdicts: Sequence[Verdict]) -> str:
    counts = [len(v.differences) for v in verdicts]
    number = len([n for n in counts if n > 1])
    needed = math.ceil(math.log2(2 * max(number, 1) / ALPHA))
    seeds = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    text = f"Compared over {seeds} seed{'' if max(counts) == 1 else 's'}."
    if max(counts) < 2:
        return f"{text} One seed says nothing about chance: run several."
    smallest = 2 / 2 ** max(counts)
    if smallest > ALPHA:
        text += (
            f" Too few to tell: with {max(counts)} seeds the smallest possible two-sided p is "
            f"{smallest:.2g}, and fewer than 6 never reach {ALPHA:g}."
        )
    if number > 1 and max(counts) < needed:
        text += (
            f" With {number} comparisons, {needed} seeds are needed before even the strongest "
            "difference can pass Holm's correction."
        )
    elif number > 1:
        text += f" P-values are corrected for {number} comparisons (Holm)."
    return text


def _scores(method: Method, unit: str) -> dict[int, float]:
    return method.gains if unit == "gain" else method.deltas.get(unit, {})


def _told(verdict: Verdict) -> bool:
    return verdict.p_holm is not None and verdict.p_holm <= ALPHA
