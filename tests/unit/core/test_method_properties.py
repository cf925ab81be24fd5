"""What methods guarantee: descent, symmetry, scaling, and no NaN for degenerate gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.aggregation import GradDrop, MGDAWeighting, PCGradWeighting
from mtl.parts import Aggregator
from mtl.scalarization import RandomLossWeighting
from tests.unit.core.toy import normal

METHODS = {
    "mgda": MGDAWeighting,
    "pcgrad": lambda: PCGradWeighting(seed=0),
    "graddrop": lambda: GradDrop(seed=0),
}


def direction(method, rows):
    if isinstance(method, Aggregator):
        return method(rows)
    return method(rows @ rows.T) @ rows


def generated(count, seed, shift, spread):
    rows = normal(count, 30, seed=seed) + shift * normal(30, seed=seed + 1)
    return rows * torch.logspace(0, spread, count, dtype=rows.dtype)[:, None]


rows_strategy = st.builds(
    generated,
    count=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    shift=st.sampled_from([-0.5, 0.0, 2.0]),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=rows_strategy)
def test_mgda_does_not_conflict(rows):
    weights = MGDAWeighting()(rows @ rows.T)
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1.0)
    update = weights @ rows
    # No task is worse off, and each gains at least the squared length of the update.
    rounding = 1e-12 * rows.norm(dim=1) * (weights @ rows.norm(dim=1))
    assert bool((rows @ update >= update @ update - rounding).all())
    assert float(update.norm()) <= float(rows.norm(dim=1).min()) * (1 + 1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=rows_strategy, seed=st.integers(0, 100))
def test_mgda_does_not_depend_on_the_order_of_tasks(rows, seed):
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    weights = MGDAWeighting()(rows @ rows.T)
    turned = MGDAWeighting()(rows[order] @ rows[order].T)
    torch.testing.assert_close(turned, weights[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_two_tasks_of_pcgrad_may_be_exchanged(seed):
    rows = normal(2, 8, seed=seed)
    rows[1] -= rows[0]
    weights = PCGradWeighting(seed=seed)(rows @ rows.T)
    assert float(weights.min()) > 1
    turned = PCGradWeighting(seed=seed)(rows.flip(0) @ rows.flip(0).T)
    torch.testing.assert_close(turned, weights.flip(0))
    # Both tasks gain.
    assert bool((rows @ (weights @ rows) >= 0).all())


@pytest.mark.parametrize("scale", [2.0**-60, 0.5, 2.0**60])
@pytest.mark.parametrize("name", METHODS)
def test_a_common_factor_goes_through(name, scale):
    rows = normal(5, 20)
    plain = direction(METHODS[name](), rows)
    torch.testing.assert_close(direction(METHODS[name](), scale * rows) / scale, plain)


DEGENERATE = {
    "zeros": torch.zeros(3, 4),
    "one zero row": torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [-1, 0, 0, 1]]),
    "identical": torch.tensor([[1.0, -2, 3, 4]]).repeat(3, 1),
    "one task": torch.tensor([[1.0, -2, 3, 4]]),
    "one zero task": torch.zeros(1, 4),
    "opposite": torch.tensor([[1.0, -2, 3, 4], [-1, 2, -3, -4]]),
    "opposite and long": torch.tensor([[1.0, -2, 3, 4], [-1e6, 2e6, -3e6, -4e6]]),
    "no columns": torch.zeros(3, 0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", METHODS)
def test_degenerate_gradients_never_give_nan(name, case, scale, dtype):
    rows = (DEGENERATE[case].double() * scale).to(dtype)
    method = METHODS[name]()
    if isinstance(method, Aggregator):
        found = method(rows)
    else:
        gram = rows.double() @ rows.double().T
        weights = method(gram)
        assert bool(weights.isfinite().all())
        found = weights.to(rows) @ rows
    assert bool(found.isfinite().all())
    assert found.dtype == dtype
    length = float(found.double().norm())
    if case.startswith("one task") or (case == "identical" and name == "mgda"):
        torch.testing.assert_close(found, rows[0])
    elif case == "identical":
        torch.testing.assert_close(found, rows.sum(0))
    elif "zero" in case and name == "mgda":
        assert length == 0.0
    elif case == "opposite" and name != "graddrop":
        assert length <= 1e-6 * scale


# ------------------------------------------------------------------------------------- random draws


def draws_of(method, count):
    """What a method does in `count` calls, as one vector."""
    rows = normal(4, 10)
    if isinstance(method, RandomLossWeighting):
        return torch.stack([method(torch.arange(1.0, 5.0)) for _ in range(count)])
    return torch.stack([direction(method, rows) for _ in range(count)])


STOCHASTIC = [PCGradWeighting, GradDrop, RandomLossWeighting]


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_seed_fixes_the_draws(kind):
    first = draws_of(kind(seed=1), 6)
    assert torch.equal(first, draws_of(kind(seed=1), 6))
    assert not torch.equal(first, draws_of(kind(seed=2), 6))
    assert len(first.unique(dim=0)) > 1  # fresh draws in every call


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_the_global_random_state_is_neither_read_nor_changed(kind):
    method = kind(seed=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draws_of(method, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(draws_of(kind(seed=1), 3), first)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_the_default_seed_is_the_global_one(kind):
    torch.manual_seed(11)
    torch.rand(3)  # what was drawn meanwhile does not matter
    first = kind()
    assert first.seed == 11
    assert torch.equal(draws_of(first, 3), draws_of(kind(seed=11), 3))


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_saved_state_continues_the_draws(kind):
    method = kind(seed=1)
    draws_of(method, 3)
    state = method.state_dict()
    expected = draws_of(method, 4)
    resumed = kind(seed=9)
    resumed.load_state_dict(state)
    assert torch.equal(draws_of(resumed, 4), expected)
    assert not torch.equal(draws_of(kind(seed=1), 4), expected)


def test_methods_of_one_seed_draw_independently():
    cpu = torch.device("cpu")
    streams = [torch.rand(4, generator=kind(seed=1).generator(cpu)) for kind in STOCHASTIC]
    assert len(torch.stack(streams).unique(dim=0)) == len(STOCHASTIC)


@pytest.mark.parametrize("seed", [-3, 0, 2**63, 2**64 - 1])
def test_any_integer_is_a_seed(seed):
    assert bool(draws_of(GradDrop(seed=seed), 2).isfinite().all())
