"""Least-norm weights against an exhaustive solver and optimality; Gramians; cosines."""

from itertools import chain, combinations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtl.linalg import cosines, gramian, min_norm_weights
from tests.unit.core.toy import normal

KINDS = (
    "gauss",
    "aligned",
    "conflicting",
    "spread10",
    "spread100",
    "spread1e4",
    "low rank",
    "duplicates",
    "zero row",
    "opposite",
)


def rows_of(kind, count, seed, width=60):
    """Vectors `[count, width]` of one kind."""
    rows = normal(count, width, seed=seed)
    if kind == "aligned":
        rows = 0.05 * rows + normal(width, seed=seed + 1)
    elif kind == "conflicting":
        rows = rows - rows.mean(0) * (1 - 1e-3)
    elif kind.startswith("spread"):
        spread = float(kind.removeprefix("spread"))
        rows = rows * torch.logspace(0, torch.tensor(spread).log10(), count)[:, None]
    elif kind == "low rank":
        rank = max(1, count // 3)
        rows = normal(count, rank, seed=seed + 1) @ rows[:rank]
    elif kind == "duplicates":
        rows = rows[torch.arange(count) // 2] + 0.3
    elif kind == "zero row":
        rows[seed % count] = 0.0
    elif kind == "opposite" and count > 1:
        rows[1] = -2 * rows[0]
    return rows


def check_optimal(gram, weights, tolerance=1e-11):
    """On the simplex, with no vector whose slope is below that of the solution.

    Slopes are compared to within the rounding of `<g_j, sum_i w_i g_i>`, which is relative to
    `|g_j| sum_i w_i |g_i|`. The squared norm exceeds the least one by at most twice the gap.
    """
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(), weights.new_ones(()))
    norms = gram.diagonal().sqrt()
    size = weights @ norms
    slopes = gram @ weights
    gap = weights @ slopes - slopes
    assert bool((gap <= tolerance * size * (norms + size)).all()), gap.max()


def exhaustive(gram):
    """The least squared norm, by trying every support."""
    count = len(gram)
    supports = chain.from_iterable(combinations(range(count), k) for k in range(1, count + 1))
    best = torch.inf
    for support in supports:
        index = torch.tensor(support)
        part = gram[index][:, index]
        system = torch.nn.functional.pad(part, (0, 1, 0, 1), value=1.0)
        system[-1, -1] = 0.0
        right = torch.zeros(len(system), dtype=gram.dtype)
        right[-1] = 1.0
        weights = (torch.linalg.pinv(system, rtol=1e-13) @ right)[:-1]
        if bool((weights >= 0).all()) and abs(float(weights.sum()) - 1) < 1e-9:
            best = min(best, float(weights @ part @ weights))
    return best


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    count=st.sampled_from([1, 2, 3, 4, 5, 10, 40]),
    seed=st.integers(0, 10**6),
    width=st.sampled_from([2, 7, 60]),
)
def test_min_norm_is_optimal(kind, count, seed, width):
    rows = rows_of(kind, count, seed, width)
    gram = rows @ rows.T
    check_optimal(gram, min_norm_weights(gram))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_min_norm_is_optimal_for_every_kind_and_size(kind, count):
    for seed in range(4):
        rows = rows_of(kind, count, seed)
        check_optimal(rows @ rows.T, min_norm_weights(rows @ rows.T))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    width=st.sampled_from([3, 60]),
)
@example(kind="conflicting", count=5, seed=0, width=60)
def test_min_norm_equals_the_best_support(kind, count, seed, width):
    rows = rows_of(kind, count, seed, width)
    gram = rows @ rows.T
    weights = min_norm_weights(gram)
    scale = float(gram.diagonal().max()) or 1.0
    assert float(weights @ gram @ weights) == pytest.approx(
        exhaustive(gram / scale) * scale, rel=1e-8, abs=1e-12 * scale
    )


@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1.0, 1e8, 1e20])
@pytest.mark.parametrize("kind", KINDS)
def test_min_norm_does_not_depend_on_the_scale(kind, scale):
    rows = rows_of(kind, 6, 3)
    gram = rows @ rows.T
    weights = min_norm_weights(scale**2 * gram)
    assert bool(weights.isfinite().all())
    check_optimal(gram, weights)
    torch.testing.assert_close(weights @ rows, min_norm_weights(gram) @ rows)


def test_min_norm_by_hand():
    rows = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        min_norm_weights(rows @ rows.T), torch.tensor([0.2, 0.8], dtype=torch.float64)
    )
    rows = torch.tensor([[1.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    assert min_norm_weights(rows @ rows.T).tolist() == [1.0, 0.0]
    rows = torch.tensor([[1.0], [-3.0]], dtype=torch.float64)
    torch.testing.assert_close(
        min_norm_weights(rows @ rows.T), torch.tensor([0.75, 0.25], dtype=torch.float64)
    )
    # The origin lies between two vectors that are 1e6 times longer than the third.
    rows = torch.tensor([[0.0, 1.0], [1e6, 0.1], [-1e6, -0.1]], dtype=torch.float64)
    assert float((min_norm_weights(rows @ rows.T) @ rows).norm()) < 1e-3
    assert min_norm_weights(torch.zeros(4, 4)).tolist() == [0.25] * 4
    assert min_norm_weights(torch.full((1, 1), 7.0)).tolist() == [1.0]


@pytest.mark.parametrize("margin", [1e-4, 1e-7, 1e-9])
def test_min_norm_sees_small_improvements(margin):
    rows = torch.tensor([[1.0, 0.0], [1.0 - margin, 1.0]], dtype=torch.float64)
    weights = min_norm_weights(rows @ rows.T)
    assert float(weights[1]) == pytest.approx(margin, rel=1e-3)
    check_optimal(rows @ rows.T, weights)


def test_min_norm_keeps_the_dtype():
    gram = rows_of("gauss", 3, 0)
    weights = min_norm_weights((gram @ gram.T).float())
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("columns", [0, 1, 7, 8191, 8192, 8193, 20001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gramian(dtype, columns):
    rows = (normal(3, columns) + 1).to(dtype)
    found = gramian(rows)
    exact = rows.double() @ rows.double().T
    assert found.dtype == torch.float64
    assert found.shape == (3, 3)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, exact, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)


def test_gramian_of_long_rows_is_more_accurate_than_one_product():
    rows = (normal(2, 2**20) + 10).float()
    exact = rows.double() @ rows.double().T
    error = ((gramian(rows) - exact) / exact).abs().max()
    assert float(error) < 1e-6
    plain = ((rows @ rows.T - exact) / exact).abs().max()
    assert float(error) < float(plain)


def test_gramian_is_positive_semidefinite_enough():
    rows = normal(20, 9001).float()
    rows[10:] = rows[:10]
    eigenvalues = torch.linalg.eigvalsh(gramian(rows))
    assert float(eigenvalues.min()) > -1e-6 * float(eigenvalues.max())


def test_cosines():
    rows = torch.tensor([[2.0, 0.0], [3.0, 3.0], [0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    half = 0.5**0.5
    expected = torch.tensor(
        [[1, half, 0, -1], [half, 1, 0, -half], [0, 0, 0, 0], [-1, -half, 0, 1]],
        dtype=torch.float64,
    )
    for scale in (1e-20, 1.0, 1e20):
        torch.testing.assert_close(cosines(scale**2 * (rows @ rows.T)), expected)
