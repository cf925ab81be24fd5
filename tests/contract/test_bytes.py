"""Processes exchange what the scheme needs: rows in parts, T x T products, one vector."""

from pathlib import Path

import pytest

from benchmarks.speed.bytes import METHODS, WITH_MEMORY, measure

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="this system does not count what a process writes"
)


@pytest.fixture(scope="module")
def two():
    return measure(2)


@pytest.fixture(scope="module")
def four():
    return measure(4)


def check(name, sent):
    most = 1.55 if name in WITH_MEMORY else 1.2
    assert 0.99 < sent.measured / sent.needed < most


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_send_what_is_needed(two, name):
    check(name, two[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_four_processes_send_what_is_needed(four, name):
    check(name, four[name])
