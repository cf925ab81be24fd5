"""ConFIG and the trimmed mean against plain implementations and TorchJD's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.aggregation import ConFIGWeighting, TrimmedMean
from mtl.errors import ConfigError
from tests.unit.core.toy import normal

quick = settings(max_examples=80, deadline=None, derandomize=True)


def generated(count, seed, spread, shift):
    rows = normal(count, 40, seed=seed) + shift * normal(40, seed=seed + 1)
    return rows * torch.logspace(0, spread, count, dtype=rows.dtype)[:, None]


matrices = st.builds(
    generated,
    count=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
    shift=st.sampled_from([-0.5, 0.0, 2.0]),
)


def config(rows, preference=None):
    return ConFIGWeighting(preference=preference)(rows @ rows.T) @ rows


def naive_config(rows, preference=None):
    """By the pseudo-inverse of the unit rows."""
    target = torch.ones(len(rows)) if preference is None else torch.tensor(preference)
    units = rows / rows.norm(dim=1, keepdim=True)
    direction = torch.linalg.pinv(units) @ target.to(rows)
    unit = direction / direction.norm()
    return (rows @ unit).sum() * unit


@quick
@given(rows=matrices)
def test_config(rows):
    found = config(rows)
    # The Gramian squares the condition of the unit rows, at most 1e3 here.
    torch.testing.assert_close(found, naive_config(rows), rtol=1e-6, atol=1e-9 * rows.norm())
    cosines = (rows @ found) / rows.norm(dim=1) / found.norm()
    torch.testing.assert_close(cosines, cosines[:1].expand(len(rows)), rtol=1e-6, atol=1e-8)
    assert bool((cosines > 0).all())


@quick
@given(rows=matrices)
def test_config_agrees_with_torchjd(rows):
    reference = pytest.importorskip("torchjd.aggregation").ConFIG()
    torch.testing.assert_close(config(rows), reference(rows), rtol=1e-6, atol=1e-9 * rows.norm())


def test_config_with_a_preference():
    rows, preference = generated(3, 0, 1.0, 0.0), [1.0, 2.0, 0.5]
    found = config(rows, preference)
    torch.testing.assert_close(found, naive_config(rows, preference))
    cosines = (rows @ found) / rows.norm(dim=1) / found.norm()
    torch.testing.assert_close(cosines / cosines[0], torch.tensor(preference, dtype=rows.dtype))


def test_config_prefers_among_present_tasks():
    method = ConFIGWeighting(preference=[1.0, 2.0, 0.5])
    rows = normal(2, 8)
    method.present = torch.tensor([0, 2])
    torch.testing.assert_close(method(rows @ rows.T) @ rows, naive_config(rows, [1.0, 0.5]))


def test_config_of_many_parameters_in_float32():
    """TorchJD's rank tolerance drops a quarter of the largest singular value here."""
    common = normal(2**21).float()
    rows = common + 0.05 * normal(3, 2**21, seed=1).float()
    found = config(rows.double())
    cosines = (rows.double() @ found) / rows.double().norm(dim=1) / found.norm()
    torch.testing.assert_close(cosines, cosines[:1].expand(3), rtol=1e-9, atol=0)


def test_config_of_dependent_rows():
    """The least-squares direction where equal cosines are impossible."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(config(rows), naive_config(rows))
    doubled = torch.cat([rows, rows])
    torch.testing.assert_close(config(doubled), 2 * config(rows))


def test_config_ignores_zero_rows_and_scales_with_the_rest():
    rows = normal(3, 8)
    padded = torch.cat([rows, torch.zeros(1, 8, dtype=rows.dtype)])
    torch.testing.assert_close(config(padded), config(rows))
    torch.testing.assert_close(config(1e-3 * rows), 1e-3 * config(rows))


# ------------------------------------------------------------------------------------- trimmed mean


@quick
@given(rows=matrices, trim=st.integers(0, 3))
def test_trimmed_mean(rows, trim):
    found = TrimmedMean(trim=trim)(rows)
    left = min(trim, (len(rows) - 1) // 2)
    for column, value in zip(rows.T[:5].tolist(), found[:5].tolist(), strict=True):
        kept = sorted(column)[left : len(column) - left]
        assert value == pytest.approx(sum(kept) / len(kept), rel=1e-9, abs=1e-12)
    if left == trim:
        reference = pytest.importorskip("torchjd.aggregation").TrimmedMean(trim)
        torch.testing.assert_close(found, reference(rows))


def test_trimmed_mean_ignores_an_outlier():
    rows = normal(4, 10)
    wild = torch.cat([rows, 1e9 * normal(1, 10, seed=5)])
    assert float(TrimmedMean()(wild).abs().max()) <= float(rows.abs().max())


# ------------------------------------------------------------------------------------- degenerate

DEGENERATE = {
    "zeros": torch.zeros(3, 4),
    "one zero row": torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [-1, 0, 0, 1]]),
    "identical": torch.tensor([[1.0, -2, 3, 4]]).repeat(3, 1),
    "one task": torch.tensor([[1.0, -2, 3, 4]]),
    "opposite": torch.tensor([[1.0, -2, 3, 4], [-1, 2, -3, -4]]),
    "opposite and long": torch.tensor([[1.0, -2, 3, 4], [-1e6, 2e6, -3e6, -4e6]]),
    "no columns": torch.zeros(3, 0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_gradients_never_give_nan(case, scale, dtype):
    rows = (DEGENERATE[case].double() * scale).to(dtype)
    weights = ConFIGWeighting()(rows.double() @ rows.double().T)
    found = weights.to(rows) @ rows
    trimmed = TrimmedMean()(rows)
    assert bool(found.isfinite().all())
    assert bool(trimmed.isfinite().all())
    assert trimmed.dtype == dtype
    if case in ("identical", "one task"):
        torch.testing.assert_close(found, rows.sum(0))
        torch.testing.assert_close(trimmed, rows[0])
    if case.startswith("opposite"):
        assert float(found.double().norm()) <= 1e-6 * float(rows.double().norm())


@pytest.mark.parametrize(
    "build",
    [
        lambda: TrimmedMean(trim=-1),
        lambda: ConFIGWeighting(preference=[1.0, 0.0]),
        lambda: ConFIGWeighting(preference=[]),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()


def test_blocks_of_columns_give_what_the_whole_gives():
    rows = torch.randn(5, 20_001)
    middle = TrimmedMean()(rows)
    torch.testing.assert_close(middle, rows.sort(0).values[1:-1].mean(0))
    assert TrimmedMean()(rows[:, :0]).shape == (0,)
