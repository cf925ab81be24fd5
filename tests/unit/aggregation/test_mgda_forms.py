"""The normalized forms of MGDA against the hull of the divided gradients themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.accuracy import references
from benchmarks.accuracy.families import rows_of
from mtl import Balancer, Step
from mtl.aggregation import EMA, Every, MGDAWeighting
from mtl.config import build
from mtl.errors import ConfigError
from tests.support import compose_config
from tests.unit.core.toy import normal

FORMS = ("none", "l2", "loss", "loss+")
BY_LOSS = ("loss", "loss+")
ROWS = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
LOSSES = torch.tensor([2.0, 0.5], dtype=torch.float64)


def divisors(form, rows, losses):
    return {
        "none": torch.ones_like(losses),
        "l2": rows.norm(dim=1),
        "loss": losses,
        "loss+": losses * rows.norm(dim=1),
    }[form]


# Of orthogonal gradients of lengths a, b the weights are b^2, a^2 over their sum.
@pytest.mark.parametrize(
    ("form", "weights"),
    [
        ("none", [1 / 10, 9 / 10]),  # lengths 3, 1
        ("l2", [1 / 2, 1 / 2]),  # 1, 1
        ("loss", [4 / 6.25, 2.25 / 6.25]),  # 3/2, 2
        ("loss+", [4 / 4.25, 0.25 / 4.25]),  # 1/2, 2
    ],
)
def test_two_orthogonal_gradients(form, weights):
    gram = ROWS @ ROWS.T
    assert MGDAWeighting(normalize=form)(gram, LOSSES).tolist() == pytest.approx(weights)
    theirs = MGDAWeighting(normalize=form, like="libmtl")(gram, LOSSES)
    expected = torch.tensor(weights, dtype=torch.float64) / divisors(form, ROWS, LOSSES)
    torch.testing.assert_close(theirs, expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    form=st.sampled_from(FORMS),
    count=st.integers(2, 10),
    seed=st.integers(0, 10**6),
    family=st.sampled_from(["gauss", "aligned", "conflict", "spread1e4"]),
    spread=st.sampled_from([1.0, 1e3, 1e8]),
)
def test_the_hull_of_the_divided_gradients(form, count, seed, family, spread):
    rows = rows_of(family, count, seed)
    losses = torch.logspace(0, float(np.log10(spread)), count, dtype=rows.dtype).flip(0)
    scaled = rows / divisors(form, rows, losses)[:, None]
    weights = MGDAWeighting(normalize=form)(rows @ rows.T, losses)
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1.0)
    expected = torch.from_numpy(references.min_norm(scaled.numpy())) @ scaled
    # The direction: the point of the hull is unique, and so is LibMTL's update.
    error = (weights @ scaled - expected).norm() / expected.norm()
    assert float(error) < 1e-6
    theirs = MGDAWeighting(normalize=form, like="libmtl")(rows @ rows.T, losses)
    torch.testing.assert_close(theirs @ rows, expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("form", BY_LOSS)
def test_a_common_factor_of_the_losses_changes_nothing(form):
    rows = rows_of("gauss", 4)
    losses = torch.tensor([0.1, 2.0, 3.0, 40.0], dtype=rows.dtype)
    method = MGDAWeighting(normalize=form)
    for scale in (1e-20, 1e20):
        torch.testing.assert_close(
            method(rows @ rows.T, scale * losses), method(rows @ rows.T, losses)
        )


@pytest.mark.parametrize("like", ["paper", "libmtl"])
@pytest.mark.parametrize("form", BY_LOSS)
def test_a_task_that_is_done(form, like):
    """No loss, no gradient: the point is stationary, as without normalization."""
    rows = rows_of("gauss", 3)
    rows[1] = 0.0
    losses = torch.tensor([1.0, 0.0, 2.0], dtype=rows.dtype)
    weights = MGDAWeighting(normalize=form, like=like)(rows @ rows.T, losses)
    assert weights.tolist() == [0.0, 1.0, 0.0]


def quadratic(form, wrap=lambda weighting: weighting):
    """A balancer's update of `|x - c_i|^2`, and what there is to compute it from."""
    point = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    centres = normal(3, 5) * torch.tensor([[1.0], [5.0], [0.3]])
    losses = {str(i): (point - centre).square().sum() for i, centre in enumerate(centres)}
    balancer = Balancer(wrap(MGDAWeighting(normalize=form)))
    balancer.backward(Step(losses, shared=[point]))
    values = torch.stack([loss.detach() for loss in losses.values()])
    return point.grad, -2 * centres, values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: Every(w, 3, every=2)])
def test_a_step_has_the_losses(form, wrap):
    update, rows, losses = quadratic(form, wrap)
    scaled = rows / divisors(form, rows, losses)[:, None]
    torch.testing.assert_close(update, torch.from_numpy(references.min_norm(scaled.numpy())) @ rows)


@pytest.mark.parametrize("form", BY_LOSS)
def test_a_wrapper_that_has_no_losses(form):
    with pytest.raises(ConfigError, match=r"needs the losses.*Use normalize=none or l2"):
        quadratic(form, lambda weighting: EMA(weighting, 3))


def test_negative_losses():
    with pytest.raises(ConfigError, match=r"MGDA with normalize=loss needs losses of at least"):
        MGDAWeighting(normalize="loss")(ROWS @ ROWS.T, -LOSSES)


@pytest.mark.parametrize("options", [{"normalize": "norm"}, {"like": "torchjd"}])
def test_options_that_others_have(options):
    with pytest.raises(ConfigError, match=r"should be .* is "):
        MGDAWeighting(**options)


@pytest.mark.parametrize("form", FORMS)
def test_options_are_in_the_configuration(form):
    config = compose_config(
        "balancer=mgda", f"balancer.combine.normalize={form}", "balancer.combine.like=libmtl"
    )
    method = build(config.balancer).combine
    assert (method.normalize, method.like) == (form, "libmtl")
