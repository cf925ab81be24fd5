"""IMTL-G, Aligned-MTL, SDMGrad and normalized MGDA against their definitions."""

import pytest
import torch
import torchjd.aggregation as library
from hypothesis import given, settings

from benchmarks.accuracy import references
from benchmarks.accuracy.families import COUNTS, FAMILIES, rows_of
from mtl.aggregation import (
    AlignedMTLWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    SDMGradWeighting,
)
from mtl.errors import ConfigError
from mtl.linalg import cosines, min_norm_weights
from tests.unit.aggregation.families import angle, direction, gradients

FULL_RANK = [family for family in FAMILIES if family != "low rank"]

# ------------------------------------------------------------------------------------------ IMTL-G


def closed_form(rows):
    """The paper's closed form, in differences to the first gradient, as LibMTL has it."""
    units = rows / rows.norm(dim=1, keepdim=True)
    differences, unit_differences = rows[:1] - rows[1:], units[:1] - units[1:]
    rest = torch.linalg.solve(
        (differences @ unit_differences.T).T, (rows[0] @ unit_differences.T)[:, None]
    )[:, 0]
    return torch.cat([1 - rest.sum()[None], rest])


@pytest.mark.parametrize("family", FULL_RANK)
@pytest.mark.parametrize("count", COUNTS)
def test_imtl_g_golden(count, family):
    for seed in range(3):
        rows = rows_of(family, count, seed)
        found, expected = direction(IMTLGWeighting(), rows), closed_form(rows) @ rows
        assert angle(found, expected) < 1e-6
        projections = rows @ found / rows.norm(dim=1)
        torch.testing.assert_close(projections, projections.mean().expand(count), rtol=1e-8, atol=0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=gradients)
def test_imtl_g_weights_sum_to_one(rows):
    assert float(IMTLGWeighting()(rows @ rows.T).sum()) == pytest.approx(1.0)


def test_imtl_g_agrees_with_torchjd():
    reference = library.IMTLGWeighting()
    for seed in range(200):
        rows = rows_of(("gauss", "aligned", "spread10")[seed % 3], 2 + seed % 6, seed)
        gram = rows @ rows.T
        torch.testing.assert_close(IMTLGWeighting()(gram), reference(gram), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 3, 10, 40])
def test_imtl_g_of_dependent_gradients_is_the_least_squares_solution(count, dtype):
    rows = rows_of("low rank", count).to(dtype).double()
    expected = torch.from_numpy(references.imtl_g(rows.numpy())) @ rows
    assert angle(direction(IMTLGWeighting(), rows), expected) < 1e-6


@pytest.mark.parametrize("rounding", [0.0, 1e-8])
def test_imtl_g_of_opposite_gradients_cancels(rounding):
    rows = torch.tensor([[1.0, 2.0], [-3.0, -6.0 * (1 + rounding)]], dtype=torch.float64)
    assert IMTLGWeighting()(rows @ rows.T).tolist() == pytest.approx([0.75, 0.25])


# -------------------------------------------------------------------------------------- Aligned-MTL


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_golden(scale, count, family):
    """By the singular value decomposition of the Jacobian itself."""
    rows = rows_of(family, count)
    expected = torch.from_numpy(references.aligned_mtl(rows.numpy(), scale)) @ rows
    found = direction(AlignedMTLWeighting(scale=scale), rows)
    assert float((found - expected).norm()) < 1e-10 * float(expected.norm())
    mean = direction(AlignedMTLWeighting(scale=scale, like="torchjd"), rows)
    torch.testing.assert_close(mean, found / count)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_agrees_with_torchjd(scale):
    reference = library.AlignedMTLWeighting(scale_mode=scale)
    for seed in range(200):
        rows = rows_of(FAMILIES[seed % 5], 2 + seed % 6, seed)
        found = AlignedMTLWeighting(scale=scale, like="torchjd")(rows @ rows.T)
        torch.testing.assert_close(found, reference(rows @ rows.T), rtol=1e-6, atol=1e-9)


def test_aligned_mtl_leaves_orthogonal_gradients_of_one_length():
    gram = 4 * torch.eye(3, dtype=torch.float64)
    assert AlignedMTLWeighting()(gram).tolist() == pytest.approx([1.0] * 3)


# --------------------------------------------------------------------------------- SDMGrad and MGDA


def test_sdmgrad_minimizes_its_objective():
    for seed in range(10):
        rows = rows_of("conflict", 4, seed)
        mean = rows.mean(0)
        weights = SDMGradWeighting(strength=0.5)(rows @ rows.T)
        simplex = weights * 1.5 - 0.5 / 4
        assert bool((simplex >= -1e-12).all())
        slopes = rows @ (simplex @ rows + 0.5 * mean)
        gap = simplex @ slopes - slopes.min()
        assert abs(float(gap)) < 1e-9 * float(slopes.abs().max())


def test_sdmgrad_lies_between_mgda_and_the_mean():
    rows = rows_of("gauss", 4)
    gram = rows @ rows.T
    torch.testing.assert_close(SDMGradWeighting(strength=0.0)(gram), MGDAWeighting()(gram))
    assert SDMGradWeighting(strength=1e9)(gram).tolist() == pytest.approx([0.25] * 4)


def test_normalized_mgda():
    rows = rows_of("spread100", 4)
    gram = rows @ rows.T
    expected = min_norm_weights(cosines(gram))
    torch.testing.assert_close(MGDAWeighting(normalize="l2")(gram), expected)
    libmtl = MGDAWeighting(normalize="l2", like="libmtl")(gram)
    torch.testing.assert_close(libmtl * rows.norm(dim=1), expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda: AlignedMTLWeighting(scale="max"),
        lambda: AlignedMTLWeighting(like="other"),
        lambda: MGDAWeighting(normalize="norm"),
        lambda: MGDAWeighting(like="torchjd"),
        lambda: SDMGradWeighting(strength=-1.0),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()
