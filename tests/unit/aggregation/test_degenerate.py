"""Gradients without norm, rank or direction: nothing raises, nothing is NaN."""

import pytest
import torch

from benchmarks.accuracy.families import FAMILIES, rows_of
from mtl.aggregation import (
    DBMTL,
    AlignedMTLWeighting,
    CAGradWeighting,
    DualProjWeighting,
    ExcessMTL,
    FairGradWeighting,
    GradVacWeighting,
    IMTLGWeighting,
    KrumWeighting,
    MGDAWeighting,
    MoCo,
    NashMTLWeighting,
    PCGradWeighting,
    SDMGradWeighting,
    UPGradWeighting,
)
from tests.unit.aggregation.families import DEGENERATE

WEIGHTINGS = {
    "aligned_mtl": lambda m: AlignedMTLWeighting(),
    "aligned_mtl median": lambda m: AlignedMTLWeighting(scale="median"),
    "aligned_mtl rmse": lambda m: AlignedMTLWeighting(scale="rmse"),
    "cagrad": lambda m: CAGradWeighting(),
    "cagrad like libmtl": lambda m: CAGradWeighting(like="libmtl"),
    "cagrad 0": lambda m: CAGradWeighting(c=0.0),
    "cagrad 2": lambda m: CAGradWeighting(c=2.0),
    "dualproj": lambda m: DualProjWeighting(),
    "fairgrad": lambda m: FairGradWeighting(),
    "fairgrad 0.5": lambda m: FairGradWeighting(alpha=0.5),
    "fairgrad 2": lambda m: FairGradWeighting(alpha=2.0),
    "fairgrad 5": lambda m: FairGradWeighting(alpha=5.0),
    "gradvac": lambda m: GradVacWeighting(m, seed=0),
    "gradvac 1": lambda m: GradVacWeighting(m, beta=1.0, seed=0),
    "imtl_g": lambda m: IMTLGWeighting(),
    "krum": lambda m: KrumWeighting(),
    "krum of many": lambda m: KrumWeighting(num_byzantine=5, num_selected=2),
    "mgda": lambda m: MGDAWeighting(),
    "mgda l2": lambda m: MGDAWeighting(normalize="l2"),
    "mgda l2 like libmtl": lambda m: MGDAWeighting(normalize="l2", like="libmtl"),
    "nash_mtl": lambda m: NashMTLWeighting(),
    "nash_mtl unlimited": lambda m: NashMTLWeighting(max_norm=None),
    "nash_mtl like libmtl": lambda m: NashMTLWeighting(like="libmtl"),
    "pcgrad": lambda m: PCGradWeighting(seed=0),
    "sdmgrad": lambda m: SDMGradWeighting(),
    "upgrad": lambda m: UPGradWeighting(),
}
OF_JACOBIANS = {"db_mtl": DBMTL, "excess_mtl": ExcessMTL, "moco": MoCo}


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_finite(name, case, scale):
    rows = DEGENERATE[case].double() * scale
    method = WEIGHTINGS[name](len(rows))
    for _ in range(3):  # the state, if there is one, must survive
        weights = method(rows @ rows.T)
        assert weights.dtype == torch.float64
        assert weights.shape == (len(rows),)
        assert bool(weights.isfinite().all())
        assert bool((weights @ rows).isfinite().all())
    if case == "one task":
        assert float(weights) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_dtype_is_the_gramians(name, dtype):
    rows = rows_of("gauss", 4)
    weights = WEIGHTINGS[name](4)((rows @ rows.T).to(dtype))
    assert weights.dtype == dtype
    assert bool(weights.isfinite().all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [2, 3, 10, 40])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_gramians_of_single_precision_are_fine(name, count, family):
    """Rounding makes them indefinite; solvers must not stumble over it."""
    for seed in range(3):
        rows = rows_of(family, count, seed, width=300).float()
        gram = (rows @ rows.T).double()
        assert bool(WEIGHTINGS[name](count)(gram).isfinite().all())


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", OF_JACOBIANS)
def test_methods_of_the_jacobian_are_finite(name, case, scale):
    rows = DEGENERATE[case].float() * scale
    if name == "excess_mtl" and scale > 1:
        rows = rows.double()  # it remembers squares
    method = OF_JACOBIANS[name](len(rows))
    for _ in range(3):
        assert bool(method(rows).isfinite().all())
    assert all(bool(buffer.isfinite().all()) for buffer in method.buffers())
