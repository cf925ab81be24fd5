"""Tests, intervals and hypervolumes beside independent computations."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtl.report.sweep.statistics import holm, hypervolume, interval, sign_flip

DIFFERENCES = st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=7)


@given(DIFFERENCES)
def test_sign_flip_is_the_share_of_patterns_as_extreme(differences):
    d = np.array(differences)
    means = [abs(np.mean(d * signs)) for signs in product((1, -1), repeat=len(d))]
    assert sign_flip(differences) == pytest.approx(np.mean(np.array(means) >= abs(d.mean()) - 1e-9))


@pytest.mark.parametrize("count", [4, 9, 16, 20])
def test_sign_flip_is_scipys(count):
    random = np.random.default_rng(count)
    differences = random.normal(0.4, 1.0, count)
    theirs = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**16,
        rng=random,
    ).pvalue
    tolerance = 1e-9 if count <= 16 else 0.01
    assert sign_flip(differences) == pytest.approx(theirs, abs=tolerance)


@pytest.mark.parametrize("count", [2, 3, 6, 10])
def test_the_smallest_p(count):
    assert sign_flip(np.arange(1, count + 1)) == pytest.approx(2 / 2**count)


def test_no_difference_is_no_evidence():
    assert sign_flip([0.0, 0.0, 0.0]) == 1


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_interval_of_the_mean_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        low, high = interval(random.normal(1.0, 1.0, 30))
        hits += low <= 1.0 <= high
    assert 85 <= hits <= 100


def test_interval_needs_two_seeds():
    assert interval([1.0]) is None
    assert interval([2.0, 2.0]) == (2.0, 2.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_hypervolume_is_the_dominated_share_of_a_grid(points):
    centres = (np.arange(200) + 0.5) / 200
    x, y = np.meshgrid(centres, centres)
    dominated = np.zeros_like(x, bool)
    for a, b in points:
        dominated |= (x <= a) & (y <= b)
    assert hypervolume(np.array(points)) == pytest.approx(dominated.mean(), abs=0.03)
