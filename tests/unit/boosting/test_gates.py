import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import expit

from mtl.boosting.gates import GateStep, minority, outlier_score, task_sums
from mtl.boosting.losses import (
    AbsoluteError,
    BinaryLogLoss,
    Huber,
    MulticlassLogLoss,
    SquaredError,
)

LOSSES = {
    "squared": (SquaredError(), 2),
    "absolute": (AbsoluteError(), 2),
    "huber": (Huber(0.7), 2),
    "binary": (BinaryLogLoss(), 1),
    "multiclass": (MulticlassLogLoss(3), 3),
}


def problem(name, seed):
    loss, outputs = LOSSES[name]
    random = np.random.default_rng(seed)
    task = np.repeat(np.arange(3), [4, 1, 7])
    y = random.normal(size=(outputs, 12))
    if name in ("binary", "multiclass"):
        y = random.integers(0, 2 if name == "binary" else 3, (1, 12)).astype(float)
    base, out, non = random.normal(size=(3, outputs, 12))
    return loss, task, y, base, out, non, random.normal(size=3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_step_is_that_of_finite_differences(name, seed):
    loss, task, y, base, out, non, theta = problem(name, seed)

    def value(theta):
        gate = expit(theta)[task]
        return loss.values(y, base + gate * out + (1 - gate) * non).sum()

    gate = expit(theta)[task]
    residual = loss.residual(y, base + gate * out + (1 - gate) * non)
    step = GateStep("gradient", 0.1)
    moved = step(theta, residual, np.ones((1, 12)), out - non, np.array([0, 4, 5]))
    np.testing.assert_allclose((theta - moved) / 0.1, approx_fprime(theta, value), atol=1e-5)


def test_the_newton_step_does_not_depend_on_the_number_of_rows():
    loss, _, y, base, out, non, theta = problem("squared", 0)
    residual = loss.residual(y, base)
    first = np.array([0, 4, 5])
    step, ones = GateStep("newton", 0.5), np.ones((1, 12))
    once = step(theta, residual, ones, out - non, first)
    twice = step(
        theta,
        np.repeat(residual, 2, axis=1),
        np.ones((1, 24)),
        np.repeat(out - non, 2, axis=1),
        2 * first,
    )
    np.testing.assert_allclose(once, twice)


def test_a_newton_step_is_bounded_and_zero_without_information():
    step = GateStep("newton", 1.0)
    residual, first = np.array([[1e6, 0.0]]), np.array([0, 1])
    moved = step(np.zeros(2), residual, np.ones((1, 2)), np.ones((1, 2)), first)
    np.testing.assert_allclose(moved, [1.0, 0.0])
    nothing = step(np.zeros(2), residual, np.zeros((1, 2)), np.ones((1, 2)), first)
    np.testing.assert_array_equal(nothing, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_outlier_scores_do_not_know_the_orientation(gates):
    gate = np.array(gates)
    np.testing.assert_allclose(outlier_score(gate), outlier_score(1 - gate), atol=1e-12)
    if np.median(gate) != 0.5:
        np.testing.assert_allclose(minority(gate), minority(1 - gate), atol=1e-12)


def test_task_sums():
    np.testing.assert_array_equal(task_sums(np.arange(6.0), np.array([0, 2, 3])), [1, 2, 12])


@pytest.mark.parametrize("name", LOSSES)
def test_residuals_are_negative_gradients(name):
    loss, _, y, raw, *_ = problem(name, 1)

    def value(flat):
        return loss.values(y, flat.reshape(raw.shape)).sum()

    gradient = approx_fprime(raw.ravel(), value).reshape(raw.shape)
    np.testing.assert_allclose(-loss.residual(y, raw), gradient, atol=1e-5)


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_curvatures_are_second_derivatives(name):
    loss, _, y, raw, *_ = problem(name, 1)
    step = 1e-5
    ahead, behind = loss.residual(y, raw + step), loss.residual(y, raw - step)
    if name == "binary":
        np.testing.assert_allclose(loss.curvature(y, raw), (behind - ahead) / (2 * step), atol=1e-6)
    for k in range(len(raw)):
        moved = step * (np.arange(len(raw)) == k)[:, None]
        slope = (loss.residual(y, raw - moved) - loss.residual(y, raw + moved))[k] / (2 * step)
        np.testing.assert_allclose(loss.curvature(y, raw)[k], slope, atol=1e-6)


@pytest.mark.parametrize("name", ["absolute", "huber"])
@pytest.mark.parametrize("move", [-2.0, -0.3, 0.4, 3.0])
def test_curvatures_of_robust_losses_touch_from_above(name, move):
    loss, outputs = LOSSES[name]
    y, raw = np.zeros((outputs, 5)), np.tile([-3.0, -0.4, 0.2, 0.8, 2.0], (outputs, 1))
    model = -loss.residual(y, raw) * move + loss.curvature(y, raw) * move**2 / 2
    assert (loss.values(y, raw + move) <= loss.values(y, raw) + model.sum(0) + 1e-9).all()


@pytest.mark.parametrize("name", LOSSES)
def test_no_constant_is_better_than_the_start(name):
    loss, _, y, *_ = problem(name, 2)
    weight = np.arange(1.0, 13)
    start = loss.start(y, weight)

    def value(constant):
        return (weight * loss.values(y, np.repeat(constant[:, None], 12, axis=1))).sum()

    for k in range(len(start)):
        for move in (-1e-3, 1e-3):
            assert value(start) <= value(start + move * (np.arange(len(start)) == k)) + 1e-9
