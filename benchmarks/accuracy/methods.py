"""Methods with a reference, ours and TorchJD's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchjd.aggregation as torchjd
from torch import Tensor

from benchmarks.accuracy import references
from benchmarks.accuracy.references import Reference
from mtl.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    ConFIGWeighting,
    DualProjWeighting,
    FairGradWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    NashMTLWeighting,
    PCGradWeighting,
    SDMGradWeighting,
    UPGradWeighting,
)
from mtl.linalg import gramian
from mtl.parts import Weighting

Direction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """An implementation, and what it should give (random methods: for the draws that it makes).

    Attributes:
        direction: Jacobian `[m, n]` to direction `[n]`, float64.
        reference: Jacobian to weights.
    """

    direction: Direction
    reference: Reference


@dataclass(frozen=True)
class Method:
    """Makes contenders from a seed.

    Attributes:
        ours: The weighting of this project.
        theirs: TorchJD's, `None` where it has none that solves the same problem.
    """

    ours: Callable[[int], Contender]
    theirs: Callable[[int], Contender] | None


def _weighted(weigh: Callable[[Tensor], Tensor]) -> Direction:
    """The direction of weights as they come; the product adds no rounding of float32."""
    return lambda rows: weigh(rows).double() @ rows.double()


def _ours(weighting: Weighting) -> Direction:
    return _weighted(lambda rows: weighting(gramian(rows)))


def _theirs(aggregator: Any) -> Direction:
    if isinstance(aggregator, torchjd.GramianWeightedAggregator):
        return _weighted(lambda rows: aggregator.gramian_weighting(rows @ rows.T))
    return lambda rows: aggregator(rows).double()


def _method(
    ours: Callable[[], Weighting], theirs: Callable[[], Any] | None, reference: Reference
) -> Method:
    return Method(
        lambda seed: Contender(_ours(ours()), reference),
        None if theirs is None else lambda seed: Contender(_theirs(theirs()), reference),
    )


def _pcgrad(seed: int) -> Contender:
    """Our draws: ranks of uniform numbers."""

    def reference(rows: references.Array) -> references.Array:
        generator = PCGradWeighting(seed=seed).generator(torch.device("cpu"))
        ranks = torch.rand(len(rows), len(rows), generator=generator).argsort(1).tolist()
        return references.pcgrad(rows, [[j for j in r if j != i] for i, r in enumerate(ranks)])

    return Contender(_ours(PCGradWeighting(seed=seed)), reference)


def _pcgrad_of_torchjd(seed: int) -> Contender:
    """Its draws: a permutation of all tasks for each task, from the global generator."""

    def direction(rows: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return _theirs(torchjd.PCGrad())(rows)

    def reference(rows: references.Array) -> references.Array:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            orders = [torch.randperm(len(rows)).tolist() for _ in rows]
        return references.pcgrad(rows, [[j for j in r if j != i] for i, r in enumerate(orders)])

    return Contender(direction, reference)


def _nash_of_torchjd(seed: int) -> Contender:
    """It wants to know the number of tasks."""
    del seed

    def weigh(rows: Tensor) -> Tensor:
        return torchjd.NashMTL(n_tasks=len(rows)).weighting(rows)

    return Contender(_weighted(weigh), partial(references.fairgrad, alpha=1.0))


def _aligned(scale: Any) -> Method:
    return _method(
        lambda: AlignedMTLWeighting(scale=scale),
        lambda: torchjd.AlignedMTL(scale_mode=scale),
        partial(references.aligned_mtl, scale=scale),
    )


METHODS = {
    "mgda": _method(MGDAWeighting, torchjd.MGDA, references.min_norm),
    "sdmgrad": _method(SDMGradWeighting, None, partial(references.sdmgrad, strength=0.3)),
    "upgrad": _method(UPGradWeighting, torchjd.UPGrad, references.upgrad),
    "dualproj": _method(DualProjWeighting, torchjd.DualProj, references.dualproj),
    "cagrad": _method(
        CAGradWeighting, lambda: torchjd.CAGrad(c=0.5), partial(references.cagrad, c=0.5)
    ),
    "nash_mtl": Method(
        lambda seed: Contender(
            _ours(NashMTLWeighting()), partial(references.fairgrad, alpha=1.0)
        ),
        _nash_of_torchjd,
    ),
    "fairgrad": _method(
        lambda: FairGradWeighting(alpha=2.0),
        lambda: torchjd.FairGrad(alpha=2.0),
        partial(references.fairgrad, alpha=2.0),
    ),
    "imtl_g": _method(IMTLGWeighting, torchjd.IMTLG, references.imtl_g),
    "aligned_mtl": _aligned("min"),
    "aligned_mtl median": _aligned("median"),
    "aligned_mtl rmse": _aligned("rmse"),
    "config": _method(ConFIGWeighting, torchjd.ConFIG, references.config),
    "pcgrad": Method(_pcgrad, _pcgrad_of_torchjd),
}
