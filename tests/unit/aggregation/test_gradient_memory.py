"""DB-MTL, ExcessMTL and MoCo: the algorithms step by step, their state, tasks that are absent."""

import copy

import pytest
import torch

from benchmarks.accuracy.families import rows_of
from mtl.aggregation import DBMTL, ExcessMTL, MoCo
from mtl.errors import ConfigError, UnsupportedError
from mtl.linalg import project_simplex

METHODS = {"db_mtl": DBMTL, "excess_mtl": ExcessMTL, "moco": MoCo}


def steps(count=6):
    return [rows_of("conflict", 3, seed, width=12) / 3 for seed in range(count)]


def test_db_mtl_golden():
    method = DBMTL(3, beta=0.7, decay=0.4)
    averages = torch.zeros(3, 12, dtype=torch.float64)
    for t, rows in enumerate(steps(), start=1):
        averages = rows + 0.7 / t**0.4 * (averages - rows)
        norms = [row.norm() for row in averages]
        expected = sum(max(norms) / norm * row for norm, row in zip(norms, averages, strict=True))
        torch.testing.assert_close(method(rows), expected)


def test_db_mtl_without_past_makes_gradients_equally_long():
    rows = rows_of("spread100", 4)
    expected = (rows / rows.norm(dim=1, keepdim=True)).sum(0) * rows.norm(dim=1).max()
    method = DBMTL(4, beta=0.0)
    torch.testing.assert_close(method(rows), expected)
    assert method.memory.rows is None


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_db_mtl_where_squares_leave_single_precision(scale):
    """Norms were once of float32: at 1e-20 zero or a few digits, at 1e20 infinite."""
    method, reference = DBMTL(3), DBMTL(3)
    for rows in steps():
        rows[1] /= 100
        torch.testing.assert_close(
            method((scale * rows).float()).double() / scale, reference(rows), rtol=1e-5, atol=1e-6
        )


def test_db_mtl_of_rows_that_are_40_orders_apart():
    rows = torch.tensor([[3e20, 4e20, 0.0], [0.0, 1e-15, 0.0], [0.0, 0.0, 1e-20], [0.0, 0.0, 0.0]])
    expected = torch.tensor([3e20, 9e20, 0.0])  # the third is as good as zero
    torch.testing.assert_close(DBMTL(4, beta=0.0)(rows), expected)


@pytest.mark.parametrize("like", ["paper", "libmtl"])
def test_excess_mtl_golden(like):
    method = ExcessMTL(3, step_size=0.5, like=like).double()
    weights, sums, first = torch.full((3,), 1 / 3, dtype=torch.float64), 0, None
    for rows in steps():
        sums = sums + rows**2
        excess = torch.stack([(g**2 / (s + 1e-7).sqrt()).sum() for g, s in zip(rows, sums)])  # noqa: B905
        if first is None:
            first = excess
        else:
            weights = weights * torch.exp(0.5 * excess / first)
            weights = weights / weights.sum()
        torch.testing.assert_close(method(rows), weights * (3 if like == "libmtl" else 1))


def test_excess_mtl_agrees_with_torchjd_after_the_first_step():
    aggregation = pytest.importorskip("torchjd.aggregation")
    if not hasattr(aggregation, "ExcessMTL"):
        pytest.skip("no ExcessMTL")
    reference = aggregation.ExcessMTL().weighting
    method = ExcessMTL(3).double()
    expected = reference(steps()[0])
    method(steps()[0])
    # TorchJD already moves the weights in the first step, by the raw risks; the paper does not.
    method.log_weights.copy_(expected.log())
    for rows in steps()[1:]:
        torch.testing.assert_close(method(rows), reference(rows), rtol=1e-5, atol=1e-9)


def test_moco_golden():
    method = MoCo(3, beta=0.5, beta_decay=0.2, gamma=0.3, gamma_decay=0.1, rho=0.05).double()
    averages = torch.zeros(3, 12, dtype=torch.float64)
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for t, rows in enumerate(steps(), start=1):
        averages = averages - 0.5 / t**0.2 * (averages - rows)
        matrix = averages @ averages.T + 0.05 * torch.eye(3, dtype=torch.float64)
        weights = project_simplex(weights - 0.3 / t**0.1 * matrix @ weights)
        torch.testing.assert_close(method(rows), weights @ averages)
        torch.testing.assert_close(method.weights, weights)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_moco_where_products_leave_single_precision(scale):
    method = MoCo(3, gamma=0.3 / scale**2)
    reference = MoCo(3, gamma=0.3)
    for rows in steps():
        found = method((scale * rows).float()).double() / scale
        torch.testing.assert_close(found, reference(rows), rtol=1e-4, atol=1e-5)
        assert float(method.weights.max()) < 1


@pytest.mark.parametrize("name", METHODS)
def test_goes_on_from_its_state(name):
    method = METHODS[name](3)
    for rows in steps(3):
        method(rows)
    fresh = METHODS[name](3)
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    for rows in steps(6)[3:]:
        assert torch.equal(method(rows), fresh(rows))


@pytest.mark.parametrize("name", METHODS)
def test_absent_tasks_keep_their_state(name):
    method = METHODS[name](3)
    first, second, *_ = steps()
    method(first)
    before = method.memory.rows.clone()
    method.present = torch.tensor([0, 2])
    assert bool(method(second[[0, 2]]).isfinite().all())
    after = method.memory.rows
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])
    if name == "moco":
        assert float(method.weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", METHODS)
def test_other_columns_are_refused(name):
    method = METHODS[name](3)
    method(steps()[0])
    with pytest.raises(UnsupportedError, match="12 columns"):
        method(steps()[0][:, :5])


@pytest.mark.parametrize(
    "build",
    [
        lambda: DBMTL(2, beta=1.0),
        lambda: DBMTL(2, decay=-1.0),
        lambda: ExcessMTL(2, step_size=0.0),
        lambda: ExcessMTL(2, like="torchjd"),
        lambda: MoCo(2, beta=0.0),
        lambda: MoCo(2, gamma=0.0),
        lambda: MoCo(2, rho=-1.0),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()
