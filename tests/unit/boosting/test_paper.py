"""With the paper's settings, the estimators do exactly what the paper says."""

import numpy as np
import pytest
from scipy.special import logit

from mtl.boosting import RMTGBClassifier, RMTGBRegressor
from tests.unit.boosting import reference


def many_tasks(seed=0, n=200, tasks=4):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 3))
    task = np.sort(random.integers(0, tasks, n))
    return x, task, random


@pytest.mark.parametrize("rounds", [(4, 6, 5), (0, 12, 0), (5, 0, 5), (0, 0, 8)], ids=str)
def test_regression_is_the_slow_reference(rounds):
    x, task, random = many_tasks()
    y = np.where(task == 3, -1, 1) * x[:, 0] + np.sin(x[:, 1]) + 0.1 * random.normal(size=len(x))
    model = RMTGBRegressor.paper(
        n_shared=rounds[0], n_gated=rounds[1], n_task=rounds[2], random_state=0
    ).fit(x, y, task)
    start = logit(model.gate_history_[0])
    raw, theta = reference.fit(x, y[:, None], task, 1, reference.squared, start, rounds)
    np.testing.assert_allclose(model.predict(x, task), raw[:, 0], atol=1e-9)
    np.testing.assert_allclose(model.theta_, theta, atol=1e-9)


def test_multi_output_regression_is_the_slow_reference():
    x, task, random = many_tasks()
    y = np.column_stack([x[:, 0] * task, x[:, 1], random.normal(size=len(x))])
    model = RMTGBRegressor.paper(n_shared=3, n_gated=5, n_task=4, random_state=0).fit(x, y, task)
    start = logit(model.gate_history_[0])
    raw, theta = reference.fit(x, y, task, 3, reference.squared, start, (3, 5, 4))
    np.testing.assert_allclose(model.predict(x, task), raw, atol=1e-9)
    np.testing.assert_allclose(model.theta_, theta, atol=1e-9)


def test_multiclass_is_the_slow_reference():
    x, task, _ = many_tasks()
    y = np.digitize(x[:, 0] + 0.5 * x[:, 1] * (task - 1), [-0.5, 0.5])
    model = RMTGBClassifier.paper(n_shared=3, n_gated=5, n_task=4, random_state=0).fit(x, y, task)
    start = logit(model.gate_history_[0])
    raw, theta = reference.fit(x, y[:, None], task, 3, reference.cross_entropy, start, (3, 5, 4))
    np.testing.assert_allclose(model.decision_function(x, task), raw, atol=1e-9)
    np.testing.assert_allclose(model.theta_, theta, atol=1e-9)


def test_one_logit_is_the_two_columns_of_the_official_code_at_half_their_rate():
    x, task, _ = many_tasks()
    y = (x[:, 0] + 0.5 * x[:, 1] * (task - 1) > 0).astype(int)
    model = RMTGBClassifier.paper(
        n_shared=3,
        n_gated=5,
        n_task=4,
        learning_rate=0.2,
        gate_learning_rate=0.1,
        random_state=0,
    ).fit(x, y, task)
    start = logit(model.gate_history_[0])
    raw, theta = reference.fit(x, y[:, None], task, 2, reference.cross_entropy, start, (3, 5, 4))
    np.testing.assert_allclose(model.decision_function(x, task), raw[:, 1] - raw[:, 0], atol=1e-9)
    np.testing.assert_allclose(model.theta_, theta, atol=1e-9)


def test_pooled_boosting_is_a_special_case():
    x, task, _ = many_tasks()
    y = x[:, 0] * task
    model = RMTGBRegressor.paper(n_shared=7, n_gated=0, n_task=0).fit(x, y, task)
    raw = np.zeros((len(x), 1))
    for _ in range(7):
        raw += 0.1 * reference.stump(x, y[:, None] - raw)
    np.testing.assert_allclose(model.predict(x, task), raw[:, 0], atol=1e-12)


@pytest.mark.parametrize("settings", ["paper", "default"])
def test_single_task_boosting_is_a_special_case(settings):
    x, task, _ = many_tasks()
    y = x[:, 0] * task
    make = RMTGBRegressor.paper if settings == "paper" else RMTGBRegressor
    common = {"n_shared": 0, "n_gated": 0, "n_task": 6, "max_bins_task": 255}
    common |= {"init": "zero", "scale_target": False}
    together = make(**common).fit(x, y, task).predict(x, task)
    for t in range(4):
        own = task == t
        alone = make(**common).fit(x[own], y[own]).predict(x[own])
        np.testing.assert_allclose(together[own], alone, atol=1e-12)
