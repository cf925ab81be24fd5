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
_DRAWS = 20


@dataclass(frozen=True)
class Contender:
    """An implementation, and what it should give (PCGrad: for the orders that it draws).

    Attributes:
        direction: Jacobian `[m, n]` to direction `[n]`, float64.
        reference: Jacobian to weights.
    """

    direction: Direction
    reference: Reference


@dataclass(frozen=True)
class Method:
    """One method in two implementations.

    Attributes:
        ours: The weighting of this project.
        theirs: TorchJD's, `None` where it has none that solves the same problem.
        draws: Seeds of each family, unless the command says how many; fewer where TorchJD's solver
            takes seconds.
    """

    ours: Contender
    theirs: Contender | None
    draws: int = _DRAWS


def _method(
    ours: Callable[[], Weighting],
    theirs: Callable[[], Any] | None,
    reference: Reference,
    their_reference: Reference | None = None,
    draws: int = _DRAWS,
) -> Method:
    """Parts are made anew for each Jacobian: some have a state."""

    def weigh(rows: Tensor) -> Tensor:
        return ours()(gramian(rows))

    peer = theirs and Contender(_of_torchjd(theirs), their_reference or reference)
    return Method(Contender(_weighted(weigh), reference), peer, draws)


def _weighted(weigh: Callable[[Tensor], Tensor]) -> Direction:
    """The direction of weights as they come; the product adds no rounding of float32."""
    return lambda rows: weigh(rows).double() @ rows.double()


def _of_torchjd(make: Callable[[], Any]) -> Direction:
    """Its weights where it has weights."""

    def direction(rows: Tensor) -> Tensor:
        aggregator = make()
        if isinstance(aggregator, torchjd.GramianWeightedAggregator):
            weigh = aggregator.gramian_weighting
            return _weighted(lambda rows: weigh(rows @ rows.T))(rows)
        return aggregator(rows).double()

    return direction


def _nash_of_torchjd(rows: Tensor) -> Tensor:
    return torchjd.NashMTL(n_tasks=len(rows)).weighting(rows)


_nash = _method(NashMTLWeighting, None, partial(references.fairgrad, alpha=1.0)).ours
_SEED = 0


def _pcgrad(rows: references.Array) -> references.Array:
    """By our draws: ranks of uniform numbers."""
    generator = PCGradWeighting(seed=_SEED).generator(torch.device("cpu"))
    orders = torch.rand(len(rows), len(rows), generator=generator).argsort(1).tolist()
    return references.pcgrad(rows, orders)


def _pcgrad_by_torchjd(rows: references.Array) -> references.Array:
    """By its draws: a permutation a task from the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        return references.pcgrad(rows, [torch.randperm(len(rows)).tolist() for _ in rows])


def _seeded(direction: Direction) -> Direction:
    def from_seed(rows: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            return direction(rows)

    return from_seed


METHODS = {
    "mgda": _method(MGDAWeighting, torchjd.MGDA, references.min_norm),
    "sdmgrad": _method(SDMGradWeighting, None, partial(references.sdmgrad, strength=0.3)),
    "upgrad": _method(UPGradWeighting, torchjd.UPGrad, references.upgrad),
    "dualproj": _method(DualProjWeighting, torchjd.DualProj, references.dualproj),
    "cagrad": _method(
        CAGradWeighting, lambda: torchjd.CAGrad(c=0.5), partial(references.cagrad, c=0.5)
    ),
    "nash_mtl": Method(_nash, Contender(_weighted(_nash_of_torchjd), _nash.reference), draws=3),
    "fairgrad": _method(
        lambda: FairGradWeighting(alpha=2.0),
        lambda: torchjd.FairGrad(alpha=2.0),
        partial(references.fairgrad, alpha=2.0),
        draws=5,
    ),
    "imtl_g": _method(IMTLGWeighting, torchjd.IMTLG, references.imtl_g, references.imtl_g_by_norms),
    "aligned_mtl": _method(AlignedMTLWeighting, torchjd.AlignedMTL, references.aligned_mtl),
    "config": _method(ConFIGWeighting, torchjd.ConFIG, references.config),
    "pcgrad": Method(
        _method(lambda: PCGradWeighting(seed=_SEED), None, _pcgrad).ours,
        Contender(_seeded(_of_torchjd(torchjd.PCGrad)), _pcgrad_by_torchjd),
    ),
}
