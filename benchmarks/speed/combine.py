"""What comes after the backward passes: from a Jacobian to a vector, from a Gramian to weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.accuracy.families import rows_of
from benchmarks.speed.methods import combiners_of_rows, torchjd_aggregators
from benchmarks.speed.tables import Table, spread
from benchmarks.speed.timing import Contender, Times, interleave, timed
from mtl import Weighting
from mtl.linalg import gramian
from mtl.parts import Combiner

_COLUMNS = 10**6
_ENTRIES = 500
_DRAWS, _DRAW_ROUNDS = 10, 3
_FLOOR = "J J^T and w J"


class _Given:
    """Objectives with a Jacobian that is there already, as a combiner asks them."""

    held = None

    def __init__(self, jacobian: Tensor) -> None:
        self.jacobian = self.columns = jacobian
        self.values = torch.ones(len(jacobian))

    @cached_property
    def gramian(self) -> Tensor:
        return gramian(self.jacobian)

    def weigh(self, weights: Tensor) -> Tensor:
        return weights.to(self.jacobian) @ self.jacobian

    def follow(self, direction: Tensor, *, held: bool = False) -> Tensor:  # noqa: ARG002
        return direction


def combine_tables(rounds: int) -> Iterator[Table]:
    """W4: from a given Jacobian of a million columns to the combined vector."""
    for num_tasks in (2, 10, 40):
        jacobian = torch.randn(num_tasks, _COLUMNS)
        weights = torch.rand(num_tasks)
        contenders = {_FLOOR: timed(partial(_products, jacobian, weights))}
        for name, combiner in combiners_of_rows(num_tasks).items():
            contenders[name] = timed(partial(_combine, combiner, jacobian))
        for name, make in torchjd_aggregators(num_tasks).items():
            if name in contenders:
                contenders[_peer(name)] = timed(partial(make(), jacobian))
        times = interleave(contenders, rounds=rounds, warmup=1)
        yield Table(
            f"combine {num_tasks}",
            f"W4: T = {num_tasks}, P = 10^6; {_FLOOR} take {times.milliseconds(_FLOOR):.1f} ms",
            ["method", "ours, ms", "ours / floor", "TorchJD, ms", "ours / TorchJD"],
            [
                [
                    f"`{name}`",
                    f"{times.milliseconds(name):.1f}",
                    spread(times.ratio(name, _FLOOR)),
                    *_beside(times, name, digits=1),
                ]
                for name in combiners_of_rows(num_tasks)
            ],
        )


def weights_tables(rounds: int) -> Iterator[Table]:
    """From a Gramian to weights; ours also where gradients depend on each other."""
    for num_tasks in (3, 10, 40):
        gram = gramian(rows_of("gauss", num_tasks, 0, _ENTRIES).float())
        contenders: dict[str, Contender] = {}
        peers = torchjd_aggregators(num_tasks)
        for name, combiner in combiners_of_rows(num_tasks).items():
            if not isinstance(combiner, Weighting):
                continue
            contenders[name] = _repeated(combiner, gram)
            weigh = getattr(peers[name](), "gramian_weighting", None) if name in peers else None
            if weigh is not None:
                contenders[_peer(name)] = _repeated(weigh, gram.float())
        times = interleave(contenders, rounds=rounds, warmup=1)
        yield Table(
            f"weights {num_tasks}",
            f"Weights from a Gramian, T = {num_tasks}",
            ["method", "ours, ms", "TorchJD, ms", "ours / TorchJD", "ours, half the rank, ms"],
            [
                [
                    f"`{name}`",
                    f"{times.milliseconds(name):.2f}",
                    *_beside(times, name, digits=2),
                    _dependent(combiner, num_tasks),
                ]
                for name, combiner in combiners_of_rows(num_tasks).items()
                if name in times.seconds
            ],
        )


def _dependent(combiner: Combiner, num_tasks: int) -> str:
    """Milliseconds where half of the gradients depend on the others: median (largest) of draws."""
    draws = [gramian(rows_of("low rank", num_tasks, s, _ENTRIES).float()) for s in range(_DRAWS)]
    found = [
        statistics.median(_repeated(combiner, gram)() for _ in range(_DRAW_ROUNDS))
        for gram in draws
    ]
    return f"{1000 * statistics.median(found):.2f} ({1000 * max(found):.2f})"


def _products(jacobian: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    return jacobian @ jacobian.T, weights @ jacobian


def _combine(combiner: Combiner, jacobian: Tensor) -> Any:
    given: Any = _Given(jacobian)
    return combiner.combine(given)


def _repeated(weigh: Callable[[Tensor], Any], gram: Tensor, times: int = 5) -> Contender:
    """Mean of a few calls: one is short beside the clock."""
    contender = timed(lambda: [weigh(gram) for _ in range(times)])
    return lambda: contender() / times


def _peer(name: str) -> str:
    return f"TorchJD {name}"


def _beside(times: Times, name: str, *, digits: int) -> list[str]:
    """TorchJD's milliseconds, and ours divided by them."""
    if _peer(name) not in times.seconds:
        return ["", ""]
    ratio = times.ratio(name, _peer(name))
    return [f"{times.milliseconds(_peer(name)):.{digits}f}", spread(ratio)]
