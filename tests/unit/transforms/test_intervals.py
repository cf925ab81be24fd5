"""Interval clustering against brute force, reference optima and invariances."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.diffusion import Diffusion
from mtl.errors import ConfigError
from mtl.transforms import clustering_cost, interval_clusters
from mtl.transforms.intervals import _dissimilarities, _full_programme, _Limits

OBJECTIVES = ["timestep", "snr", "gradient", "cost"]


def problem(objective, length, seed):
    rng = np.random.default_rng(seed)
    if objective == "timestep":
        return length
    if objective == "snr":
        return np.sort(rng.normal(size=length))[:: rng.choice([-1, 1])]
    if objective == "cost":
        return rng.normal(size=(length, length))
    directions = rng.normal(size=(length, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions @ directions.T


def brute_force(values, length, k, objective, least=1, most=None):
    costs = []
    for inner in itertools.combinations(range(1, length), k - 1):
        bounds = [0, *inner, length]
        sizes = np.diff(bounds)
        if sizes.min() >= least and sizes.max() <= (most or length):
            costs.append(clustering_cost(values, bounds, objective))
    return min(costs)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("limited", [False, True])
def test_brute_force(objective, limited):
    rng = np.random.default_rng(7)
    for seed in range(60):
        length = int(rng.integers(1, 12))
        k = int(rng.integers(1, length + 1))
        least = max(1, length // (2 * k)) if limited else 1
        most = -(-3 * length // (2 * k)) if limited else None
        values = problem(objective, length, seed)
        bounds = interval_clusters(values, k, objective, min_size=least, max_size=most)
        assert len(bounds) == k + 1
        assert (bounds[0], bounds[-1]) == (0, length)
        assert all(type(bound) is int for bound in bounds)
        assert min(np.diff(bounds)) >= least
        assert most is None or max(np.diff(bounds)) <= most
        best = brute_force(values, length, k, objective, least, most)
        assert clustering_cost(values, bounds, objective) == pytest.approx(best, abs=1e-9)


def schedule(name):
    return Diffusion(schedule=name).log_snr.numpy()


def affinity_of(log_snr):
    return np.exp(-np.abs(log_snr[:, None] - log_snr) / 4)


@pytest.mark.parametrize(
    ("name", "values", "objective", "limits", "bounds", "cost"),
    [
        ("cosine", "index", "timestep", {}, [0, 200, 400, 600, 800, 1000], 50000),
        ("cosine", "log", "snr", {}, [0, 133, 372, 653, 881, 1000], 705.506),
        ("linear", "log", "snr", {}, [0, 153, 394, 624, 823, 1000], 781.740),
        ("cosine", "raw", "snr", {}, [0, 1, 4, 11, 36, 1000], 24719.8),
        ("linear", "raw", "snr", {}, [0, 1, 2, 5, 18, 1000], 8074.75),
        ("cosine", "affinity", "gradient", {}, [0, 152, 376, 630, 849, 1000], -853.502),
        ("linear", "affinity", "gradient", {}, [0, 184, 415, 632, 825, 1000], -831.934),
        *(
            (
                name,
                "raw",
                "snr",
                {"min_size": 100, "max_size": 300},
                [0, 100, 200, 400, 700, 1000],
                None,
            )
            for name in ("cosine", "linear")
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_reference_optima(name, values, objective, limits, bounds, cost):
    log_snr = schedule(name)
    given = {
        "index": 1000,
        "log": log_snr,
        "raw": np.exp(log_snr),
        "affinity": affinity_of(log_snr),
    }[values]
    assert interval_clusters(given, 5, objective, **limits) == bounds
    if cost is not None:
        assert clustering_cost(given, bounds, objective) == pytest.approx(cost, rel=2e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_cluster_and_all_singletons(objective):
    values = problem(objective, 9, 0)
    assert interval_clusters(values, 1, objective) == [0, 9]
    assert interval_clusters(values, 9, objective) == list(range(10))
    singletons = clustering_cost(values, list(range(10)), objective)
    diagonal = {"gradient": -1.0, "cost": 1.0}
    if objective in diagonal:
        assert singletons == pytest.approx(diagonal[objective] * np.trace(values))
    else:
        assert singletons == 0


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_cost_falls_with_k(seed, length):
    values = problem("snr", length, seed)
    costs = [
        clustering_cost(values, interval_clusters(values, k, "snr"), "snr")
        for k in range(1, length + 1)
    ]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(costs))


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_affine_maps_and_reversal(seed, factor, offset, k):
    values = problem("snr", 25, seed)
    bounds = interval_clusters(values, k, "snr")
    cost = clustering_cost(values, bounds, "snr")
    for sign in (1, -1):
        other = interval_clusters(sign * factor * values + offset, k, "snr")
        assert clustering_cost(values, other, "snr") == pytest.approx(cost, abs=1e-9)
    mirrored = interval_clusters(values[::-1], k, "snr")
    assert clustering_cost(values[::-1], mirrored, "snr") == pytest.approx(cost, abs=1e-9)


def test_block_diagonal_affinity_is_recovered():
    sizes = [3, 7, 1, 5]
    affinity = np.zeros((16, 16))
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        affinity[start : start + size, start : start + size] = 1
    assert interval_clusters(affinity, 4, "gradient") == [0, 3, 10, 11, 16]
    ones = np.ones((16, 16))
    assert clustering_cost(ones, interval_clusters(ones, 3, "gradient"), "gradient") == -16


@pytest.mark.parametrize(("length", "k"), [(100, 5), (2000, 5), (60, 3), (4000, 8)])
def test_other_numbers_of_timesteps(length, k):
    size = length // k
    bounds = interval_clusters(length, k)
    assert bounds == [i * size for i in range(k + 1)]
    assert clustering_cost(length, bounds) == k * size**2 / 4


@pytest.mark.parametrize("limits", [(1, None), (30, 120)])
def test_divide_and_conquer_equals_the_full_programme(limits):
    for name in ("linear", "cosine"):
        values = schedule(name)[::4]
        quick = interval_clusters(values, 6, "snr", min_size=limits[0], max_size=limits[1])
        table = np.full((250, 250), np.inf)
        for left in range(250):
            for right in range(left, 250):
                middle = values[(left + right + 1) // 2]
                table[left, right] = np.abs(values[left : right + 1] - middle).sum()
        full = _full_programme(table, _Limits(250, 6, *limits))
        assert clustering_cost(values, quick, "snr") == pytest.approx(
            clustering_cost(values, full, "snr"), rel=1e-12
        )


def test_affinities_violate_the_quadrangle_inequality():
    """Why they need the full programme."""
    costs = _dissimilarities(affinity_of(schedule("cosine")[::20]))
    gaps = [
        costs[left, right]
        + costs[left + 1, right + 1]
        - costs[left, right + 1]
        - costs[left + 1, right]
        for left in range(49)
        for right in range(left + 1, 49)
    ]
    assert max(gaps) > 1e-3


def test_tensors_and_lists_are_taken_too():
    log_snr = Diffusion().log_snr
    expected = interval_clusters(log_snr.numpy(), 5, "snr")
    assert interval_clusters(log_snr, 5, "snr") == expected
    assert interval_clusters(log_snr.tolist(), 5, "snr") == expected


@pytest.mark.parametrize(
    ("values", "k", "options", "named"),
    [
        (10, 11, {}, ["`k`", "between 1 and 10", "11"]),
        (10, 0, {}, ["`k`"]),
        (10, 3, {"min_size": 4}, ["min_size=4", "3 * min_size <= 10"]),
        (10, 3, {"max_size": 3}, ["max_size=3"]),
        (10, 3, {"min_size": 3, "max_size": 2}, ["min_size=3", "max_size=2"]),
        (10, 3, {"min_size": 0}, ["min_size=0"]),
        ([0.0, 2.0, 1.0, 3.0], 2, {"objective": "snr"}, ["monotone", "2, then 1", "position 2"]),
        ([3.0, 1.0, 2.0, 0.0], 2, {"objective": "snr"}, ["monotone", "1, then 2"]),
        ([0.0, np.nan], 1, {"objective": "snr"}, ["finite", "1 NaN"]),
        (np.zeros((3, 4)), 2, {"objective": "gradient"}, ["square", "[3, 4]"]),
        (np.full((3, 3), np.nan), 2, {"objective": "gradient"}, ["square", "9 NaN"]),
        (np.zeros(3), 2, {"objective": "gradient"}, ["square", "[3]"]),
        (np.zeros((3, 3)), 2, {"objective": "snr"}, ["sequence", "[3, 3]"]),
        (10, 2, {"objective": "sizes"}, ["objective", "timestep, snr, gradient, cost"]),
    ],
)
def test_wrong_input(values, k, options, named):
    with pytest.raises(ConfigError) as error:
        interval_clusters(values, k, **options)
    assert all(word in str(error.value) for word in named), str(error.value)
