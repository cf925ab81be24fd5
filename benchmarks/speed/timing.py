"""Ratios that hold on a shared machine: contenders in turn, one thread, CPU time."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

Contender = Callable[[], float]
"""Runs once and returns its CPU seconds."""


class Ratio(NamedTuple):
    """Quartiles over rounds of one contender's time divided by another's in the same round."""

    low: float
    middle: float
    high: float


class Times:
    """CPU seconds of several contenders, round by round.

    Args:
        seconds: Name -> one number a round.
    """

    def __init__(self, seconds: Mapping[str, list[float]]) -> None:
        self.seconds = dict(seconds)

    def milliseconds(self, name: str) -> float:
        """Median."""
        return 1000 * statistics.median(self.seconds[name])

    def ratio(self, name: str, reference: str) -> Ratio:
        """How much longer it takes than the reference."""
        pairs = zip(self.seconds[name], self.seconds[reference], strict=True)
        return Ratio(*statistics.quantiles([own / other for own, other in pairs], n=4))

    def fastest(self, names: Iterable[str]) -> str:
        """The one with the lowest median."""
        return min(names, key=self.milliseconds)


def timed(run: Callable[[], object]) -> Contender:
    """Makes a contender of a function."""

    def contender() -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    return contender


def interleave(contenders: Mapping[str, Contender], *, rounds: int, warmup: int = 2) -> Times:
    """Times all contenders once a round, in random order.

    Args:
        contenders: Name -> contender.
        rounds: Number of rounds that count, at least 2.
        warmup: Number of rounds before.
    """
    order = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    shuffle = random.Random(0).shuffle
    for i in range(warmup + rounds):
        shuffle(order)
        for name in order:
            spent = contenders[name]()
            if i >= warmup:
                seconds[name].append(spent)
    return Times(seconds)
