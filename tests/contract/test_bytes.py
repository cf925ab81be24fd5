"""Processes exchange what the scheme needs: rows in parts, T x T products, one vector."""

from pathlib import Path

import pytest

from benchmarks.speed.bytes import measure

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="this system does not count what a process writes"
)
OF_THE_JACOBIAN = {"db_mtl", "excess_mtl", "graddrop", "moco", "trimmed_mean"}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_every_preset_sends_what_is_needed(processes):
    sent = measure(processes)
    levels = {level: {name for name, of in sent if of == level} for _, level in sent}
    assert levels["parameters"] >= {"ew", "pcgrad", "nash_mtl"} | OF_THE_JACOBIAN
    assert levels["representation"] >= {"pcgrad", "gradnorm"} | OF_THE_JACOBIAN
    ratios = {case: of.ratio for case, of in sent.items() if of.ratio is not None}
    assert len(ratios) > 40
    assert not {case: ratio for case, ratio in ratios.items() if not 0.99 < ratio < 1.2}
