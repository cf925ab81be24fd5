"""Ratios that hold on a shared machine: contenders in turn, one thread, CPU time."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """CPU time of a contender.

    Attributes:
        milliseconds: Median.
        ratio: Median over rounds of its time divided by the reference's in the same round.
        low: First quartile of these ratios.
        high: Third quartile.
    """

    milliseconds: float
    ratio: float
    low: float
    high: float


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Makes a contender of a function: its CPU seconds."""

    def contender() -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    return contender


def interleave(
    contenders: Mapping[str, Callable[[], float]], *, reference: str, rounds: int, warmup: int = 2
) -> dict[str, Timing]:
    """Times all contenders once a round, in random order.

    Args:
        contenders: Name -> function that runs and returns its CPU seconds.
        reference: The contender that the others are divided by.
        rounds: Number of rounds that count.
        warmup: Number of rounds before.
    """
    order = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    shuffle = random.Random(0).shuffle
    for i in range(warmup + rounds):
        shuffle(order)
        for name in order:
            seconds = contenders[name]()
            if i >= warmup:
                times[name].append(seconds)
    result = {}
    for name, own in times.items():
        ratios = [t / r for t, r in zip(own, times[reference], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        result[name] = Timing(1000 * statistics.median(own), middle, low, high)
    return result
