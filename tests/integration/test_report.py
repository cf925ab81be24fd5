"""Two commands from a data set to a report."""

import subprocess
import sys
import tomllib

import pytest

from benchmarks.speed.sweeps import write_run
from mtl.report import PeakMemory, Results
from mtl.report.sweep.command import main
from tests.integration.shell import TINY, environment, invoke
from tests.support import ROOT


def test_a_sweep_and_its_report(tmp_path):
    invoke("-m", *TINY, "balancer=ew,stl", "seed=0", "hydra.sweep.dir=sweep", cwd=tmp_path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "report.py"), "sweep", "--no-pictures"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "sweep" / "report" / "report.md").read_text()
    assert "own single-task runs (1 a task)" in text
    assert "| `ew` | 1 |" in text
    assert "nothing to compare ew with" in text
    (run,) = (tmp_path / "sweep").glob("0_*/metrics.json")
    info = Results.read(run).info
    assert info["resumed"] is False
    assert info["peak_memory"] is None or 1e8 < info["peak_memory"] < 1e11


def test_peak_memory_forgets_earlier_runs():
    if PeakMemory().read(on_gpu=False) is None:
        pytest.skip("the kernel does not tell, or not to us")
    first = PeakMemory()
    start = first.read(on_gpu=False)
    held = bytearray(300_000_000)
    assert first.read(on_gpu=False) > start + 250_000_000
    del held
    assert PeakMemory().read(on_gpu=False) < start + 100_000_000


def test_the_entry_point_is_the_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["mtl-report"].partition(":")
    assert getattr(__import__(module, fromlist=[function]), function) is main


def test_without_plotly_the_rest_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    write_run(tmp_path / "0", "ew", 0)
    assert main([str(tmp_path), "--no-pictures"]) == 2
    assert "mtl-balance[report]" in capsys.readouterr().err
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"report.md", "report.csv", "report.tex"}
