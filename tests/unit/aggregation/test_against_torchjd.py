"""TorchJD's weightings on random, scaled, dependent and degenerate gradients, as a table.

Each method is compared with TorchJD's where that gives what the paper defines, to the tolerance of
its row. Where it does not, `differs` says why, and a test sees it differ. There the paper has the
last word: what it states is checked of our weights for all kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torchjd.aggregation as library
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from qpsolvers import ProblemError
from torch import Tensor

import mtl.aggregation as own
from tests.unit.aggregation import optimality
from tests.unit.aggregation.families import KINDS, drawn
from tests.unit.aggregation.torchjd_updates import (
    UnsolvedError,
    gramian,
    in_our_order,
    nash_mtl,
    projecting,
    theirs,
    two_steps,
)

# Of the peer's programs: that they are slow, and that it divides by zero.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:torchjd.aggregation._nash_mtl"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:cvxpy.atoms.affine.binary_operators"),
]
quick = settings(max_examples=200, deadline=None, derandomize=True)
DEPENDENT = ("duplicates", "few columns", "zero row", "opposite", "two opposite", "identical")


def ours(make):
    return lambda rows: make()(gramian(rows))


def gradvac(rows):
    method = own.GradVacWeighting(len(rows), beta=0.5, like="torchjd", seed=0).double()
    return [method(gramian(step)) for step in two_steps(rows)][-1]


@dataclass(frozen=True)
class Row:
    """A method of both libraries.

    Attributes:
        ours: Weights, from the gradients.
        theirs: The update of TorchJD, from the gradients.
        paper: Asserts of our weights what the paper states.
        tolerance: How far apart updates may be, relative to the longer.
        differs: Kinds for which TorchJD fails or gives something else, and why.
    """

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]
    paper: Callable[[Tensor, Tensor], None]
    tolerance: float = 1e-9
    differs: dict[str, str] = field(default_factory=dict)


def because(reason, *kinds):
    return dict.fromkeys(kinds, reason)


TABLE = {
    "mgda": Row(
        ours(own.MGDAWeighting),
        theirs(lambda: library.MGDAWeighting(epsilon=1e-9, max_iters=300)),
        optimality.shortest,
        differs=because(
            "Frank-Wolfe's steps, exact for two tasks, end before the optimum",
            *("gauss", "scaled 10", "scaled 100", "allies", "pairs"),
            *("duplicates", "few columns", "opposite"),
        ),
    ),
    "pcgrad": Row(
        ours(lambda: own.PCGradWeighting(seed=0)),
        lambda rows: in_our_order(own.PCGradWeighting(seed=0), library.PCGradWeighting(), [rows]),
        optimality.deconflicted,
    ),
    "gradvac": Row(
        gradvac,
        lambda rows: in_our_order(
            own.GradVacWeighting(len(rows), seed=0),
            library.GradVacWeighting(beta=0.5, eps=0.0),
            two_steps(rows),
        ),
        optimality.only_added,
        differs=because("rounded sines of a cosine of -1", "opposite", "two opposite"),
    ),
    "cagrad": Row(
        ours(lambda: own.CAGradWeighting(c=0.5, like="torchjd")),
        theirs(lambda: library.CAGradWeighting(c=0.5, norm_eps=1e-9)),
        optimality.within_radius,
        tolerance=1e-3,  # its conic solver knows the optimal value to 1e-8, a minimum to the root
        differs=because("zero, where no direction helps all", "zero row", "opposite"),
    ),
    "nash_mtl": Row(
        ours(lambda: own.NashMTLWeighting(like="torchjd")),
        nash_mtl,
        optimality.bargained,
        tolerance=1e-3,
        differs=because(
            "no game, or programs that do not converge",
            *("scaled 100", "few columns", "zero row", "opposite", "two opposite"),
        ),
    ),
    "imtl_g": Row(
        ours(own.IMTLGWeighting),
        theirs(library.IMTLGWeighting),
        optimality.impartial,
        differs=because("other weights of the same update, so another sum", "duplicates")
        | because("squares of projections on gradients of any length", "few columns", "opposite")
        | because("no equal projections; the update is rounding, made longer", "two opposite"),
    ),
    "aligned_mtl": Row(
        ours(lambda: own.AlignedMTLWeighting(like="torchjd")),
        theirs(library.AlignedMTLWeighting),
        optimality.aligned,
    ),
    "upgrad": Row(
        ours(own.UPGradWeighting),
        projecting(library.UPGradWeighting),
        optimality.projections,
        differs=because("its solver needs a regular Gramian", *DEPENDENT),
    ),
    "dualproj": Row(
        ours(own.DualProjWeighting),
        projecting(library.DualProjWeighting),
        optimality.projected,
        differs=because("its solver needs a regular Gramian", *DEPENDENT),
    ),
    "fairgrad": Row(
        ours(lambda: own.FairGradWeighting(alpha=2.0)),
        theirs(lambda: library.FairGradWeighting(alpha=2.0)),
        optimality.fair,
        tolerance=1e-6,  # it stops where the squared residual changes by less than 1e-8
        differs=because("its equation has no root", "few columns", "opposite", "two opposite"),
    ),
    "krum": Row(
        ours(lambda: own.KrumWeighting(num_selected=2, like="torchjd")),
        theirs(lambda: library.KrumWeighting(n_byzantine=0, n_selected=2)),
        optimality.nearest_to_others,
        differs=because("it takes three tasks or more", "two", "two opposite"),
    ),
    "config": Row(
        ours(own.ConFIGWeighting),
        library.ConFIG(),
        optimality.free_of_conflict,
        differs=because("no equal cosines; the update is rounding", "two opposite"),
    ),
}
GAPS = [(name, kind) for name, row in TABLE.items() for kind in row.differs]


def apart(row, rows, weights):
    """Of both updates, relative to the longer; if near zero, to a thousandth of the gradients."""
    found, expected = weights @ rows, row.theirs(rows)
    longest = max(float(found.norm()), float(expected.norm()), 1e-3 * float(rows.norm()))
    return float((found - expected).norm()) / longest


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", TABLE)
def test_agrees_with_torchjd(name, data):
    row = TABLE[name]
    rows = data.draw(drawn([kind for kind in KINDS if kind not in row.differs]))
    try:
        distance = apart(row, rows, row.ours(rows))
    except UnsolvedError:
        reject()
    assert distance <= row.tolerance


@quick
@given(rows=drawn())
@pytest.mark.parametrize("name", TABLE)
def test_the_paper_wins(name, rows):
    TABLE[name].paper(rows, TABLE[name].ours(rows))


@pytest.mark.parametrize(("name", "kind"), GAPS)
def test_torchjd_differs(name, kind):
    """No kind is left out of the comparison without need."""
    row, (_, build) = TABLE[name], KINDS[kind]
    for seed in range(40):
        rows = build(2 if kind.startswith("two") else 5, seed)
        weights = row.ours(rows)
        try:
            if not apart(row, rows, weights) <= 10 * row.tolerance:
                return
        except (ValueError, ProblemError):  # of singular programs, or of too few tasks
            return
    pytest.fail(f"TorchJD's {name} agrees for {kind}: compare it.")


@settings(quick, max_examples=100)
@given(rows=drawn())
@pytest.mark.parametrize("name", ["mgda", "cagrad"])
def test_no_worse_than_torchjd(name, rows):
    """The papers' objectives, at both updates: the hull is convex, and a worst gain is greatest."""
    found, other = TABLE[name].ours(rows) @ rows, TABLE[name].theirs(rows)
    rounding = 1e-9 * float(rows.norm()) ** 2
    if name == "mgda":
        # |other|^2 >= |found|^2 + |other - found|^2 in a convex hull, if `found` is the shortest.
        least = found @ found + (other - found) @ (other - found)
        assert float(least) <= float(other @ other) + rounding
    elif float(other.norm()) > 0:  # zero is outside the radius
        worst, bound = float((rows @ found).min()), float((rows @ other).min())
        assert worst >= bound - rounding


@quick
@given(rows=drawn())
@pytest.mark.parametrize("name", ["UPGradWeighting", "DualProjWeighting"])
def test_the_solver_of_projections_with_torchjds_ridge(name, rows):
    """Ours for the Gramian to which TorchJD's defaults lead, of all kinds."""
    trace = float(rows.square().sum())
    weights = getattr(own, name)()(gramian(rows) + 1e-4 * trace * torch.eye(len(rows)))
    expected = getattr(library, name)()(gramian(rows))
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_a_wrong_weight_is_noticed(name):
    row, rows = TABLE[name], KINDS["scaled 10"][1](2 if name == "mgda" else 4, 1)
    weights = row.ours(rows)
    weights[weights.argmax()] *= 0.7
    assert apart(row, rows, weights) > row.tolerance
    with pytest.raises(AssertionError):
        row.paper(rows, weights)
