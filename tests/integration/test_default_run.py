"""The README's main job, at its real size."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_the_default_learns(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py")],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "delta_p" in result.stdout
    assert "Single-task values: this repository" in result.stdout
    (path,) = tmp_path.glob("outputs/scenes/ew/*/metrics.json")
    results = json.loads(path.read_text())
    # This seed reached 0.38, 0.37 and 28 with one and with two threads.
    assert results["metrics"]["segmentation"]["miou"] > 0.3
    assert results["metrics"]["depth"]["absolute_error"] < 0.45
    assert results["metrics"]["normal"]["mean_angle"] < 32
    assert results["delta_p"] is not None
