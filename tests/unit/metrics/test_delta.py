"""Summaries against baselines: published table rows, properties and messages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.errors import ConfigError
from mtl.metrics import delta_m, delta_p, relative_gain

NYU = {
    "segmentation": {"miou": True, "pixel_accuracy": True},
    "depth": {"absolute": False, "relative": False},
    "normal": {"mean": False, "median": False, "w11": True, "w22": True, "w30": True},
}


def nest(numbers, directions=NYU):
    """Fill tasks and metrics with the numbers of a table row, left to right."""
    numbers = iter(numbers)
    return {task: {name: next(numbers) for name in row} for task, row in directions.items()}


# Rep-MTL (ICCV 2025), Table 1, NYUv2: nine metrics, then the mean by task and the mean by metric.
REP_STL = (53.50, 75.39, 0.3926, 0.1605, 21.99, 15.16, 39.04, 65.00, 75.16)
REP_ROWS = {
    "EW": (53.93, 75.53, 0.3825, 0.1577, 23.57, 17.01, 35.04, 60.99, 72.05, -1.78, -3.85),
    "UW": (54.29, 75.64, 0.3815, 0.1583, 23.48, 16.92, 35.26, 61.17, 72.21, -1.52, -3.54),
    "MGDA": (53.52, 74.76, 0.3852, 0.1566, 22.74, 16.00, 37.12, 63.22, 73.84, -0.64, -1.65),
    "CAGrad": (53.97, 75.54, 0.3885, 0.1588, 22.47, 15.71, 37.77, 63.82, 74.30, -0.27, -0.98),
    "Nash-MTL": (53.41, 74.95, 0.3867, 0.1612, 22.57, 15.94, 37.30, 63.40, 74.09, -1.01, -1.76),
    "DB-MTL": (53.92, 75.60, 0.3768, 0.1557, 21.97, 15.37, 38.43, 64.81, 75.24, 1.15, 0.56),
    "Rep-MTL": (54.59, 76.04, 0.3750, 0.1542, 21.91, 15.28, 38.37, 64.72, 75.05, 1.70, 0.95),
}

# F-MTL (task-based flat regions), Table 3, NYUv2: nine metrics, then the drop Delta m.
FLAT_STL = (38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15)
FLAT_ROWS = {
    "LS": (39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08, 5.59),
    "MGDA": (30.47, 59.90, 0.6070, 0.2555, 24.88, 19.45, 29.18, 56.88, 69.36, 1.38),
    "CAGrad": (39.79, 65.49, 0.5486, 0.2250, 26.31, 21.58, 25.61, 52.36, 65.58, 0.20),
}


@pytest.mark.parametrize("method", REP_ROWS)
def test_rep_mtl_table(method):
    *row, by_task, by_metric = REP_ROWS[method]
    arguments = nest(row), nest(REP_STL), NYU
    assert delta_p(*arguments) == pytest.approx(by_task, abs=0.02)
    assert delta_m(*arguments) == pytest.approx(-by_metric, abs=0.02)


@pytest.mark.parametrize("method", FLAT_ROWS)
def test_flat_mtl_table(method):
    *row, drop = FLAT_ROWS[method]
    assert delta_m(nest(row), nest(FLAT_STL), NYU) == pytest.approx(drop, abs=0.02)


def test_the_baseline_itself_is_zero():
    assert delta_p(nest(REP_STL), nest(REP_STL), NYU) == 0
    assert delta_m(nest(REP_STL), nest(REP_STL), NYU) == 0


positive = st.floats(0.01, 100)


@given(st.lists(positive, min_size=9, max_size=9), st.lists(positive, min_size=9, max_size=9))
def test_means_of_relative_gains(values, base):
    values, base = nest(values), nest(base)
    gains = {
        task: [relative_gain(values[task][m], base[task][m], up) for m, up in row.items()]
        for task, row in NYU.items()
    }
    everything = [gain for row in gains.values() for gain in row]
    by_task = sum(sum(row) / len(row) for row in gains.values()) / 3
    assert delta_m(values, base, NYU) == pytest.approx(-sum(everything) / 9, rel=1e-9, abs=1e-9)
    assert delta_p(values, base, NYU) == pytest.approx(by_task, rel=1e-9, abs=1e-9)


@given(value=positive, base=positive)
def test_one_metric_a_task_makes_the_two_opposite(value, base):
    tables = {"a": {"m": value}}, {"a": {"m": base}}, {"a": {"m": False}}
    assert delta_m(*tables) == -delta_p(*tables)


@pytest.mark.parametrize(
    ("value", "base", "higher", "gain"),
    [(1.1, 1.0, True, 10.0), (1.1, 1.0, False, -10.0), (-1.0, -2.0, True, 50.0)],
)
def test_relative_gain(value, base, higher, gain):
    assert relative_gain(value, base, higher) == pytest.approx(gain)


def test_nan_values_show():
    assert math.isnan(relative_gain(math.nan, 1.0, True))
    assert math.isnan(delta_m({"a": {"m": math.nan}}, {"a": {"m": 1.0}}, {"a": {"m": True}}))


@pytest.mark.parametrize("base", [0.0, math.nan, math.inf])
def test_useless_baselines_are_refused(base):
    with pytest.raises(ValueError, match=r"finite number other than 0, got .*\(value 2.5\)"):
        relative_gain(2.5, base, True)
    with pytest.raises(ConfigError, match="a/m: baseline: expected"):
        delta_m({"a": {"m": 1.0}}, {"a": {"m": base}}, {"a": {"m": True}})


def test_directions_may_cover_more():
    tables = {"a": {"m": 2.0}}, {"a": {"m": 1.0}}
    assert delta_p(*tables, {"a": {"m": True, "n": True}, "b": {"m": False}}) == pytest.approx(100)


@pytest.mark.parametrize("summary", [delta_m, delta_p])
def test_missing_tasks_and_metrics_are_named(summary):
    full = {"a": {"m": 1.0, "n": 1.0}, "b": {"m": 1.0}}
    part = {"a": {"m": 1.0}}
    up = {"a": {"m": True, "n": True}, "b": {"m": True}}
    with pytest.raises(ValueError, match=r"baseline: .* got a/m; missing: b, a/n; add them"):
        summary(full, part, up)
    with pytest.raises(ValueError, match=r"values: .* got a/m; missing: b, a/n; add them"):
        summary(part, full, up)
    with pytest.raises(ValueError, match=r"higher_is_better: .* got nothing; missing: a, b;"):
        summary(full, full, {})
    with pytest.raises(ValueError, match=r"values: expected at least one task, .* got no task"):
        summary({}, {}, {})
    with pytest.raises(ValueError, match="no metric for a"):
        summary({"a": {}}, {"a": {}}, up)
