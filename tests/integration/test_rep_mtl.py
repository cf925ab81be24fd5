"""A run of Rep-MTL: what it logs, and the power-law exponents of its checkpoint."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.shell import TINY, environment, invoke
from tests.support import ROOT


def power_law(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "power_law.py"), *arguments],
        cwd=cwd,
        env=environment(cwd),
        capture_output=True,
        text=True,
        check=False,
    )


def test_of_a_run(tmp_path):
    pytest.importorskip("weightwatcher")
    run = invoke(*TINY, "balancer=rep_mtl", cwd=tmp_path).ok()
    columns = (run.folder / "history.csv").read_text().splitlines()[0].split(",")
    logged = {c.removeprefix("balancer/") for c in columns}
    assert logged >= {"regularizer/tsr", "regularizer/csa", "csa/positive", "csa/negative"}
    assert logged >= {f"{name}/gradient_norm" for name in ("tsr", "csa", "tasks")}
    done = power_law(f"ckpt={run.last}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"backbone +│ \d+\.\d\d +│ 2 ", done.stdout), done.stdout
    assert "head left" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["ckpt=no.ckpt"], ["ckpt=text.ckpt"], ["no.ckpt"]])
def test_what_is_no_checkpoint(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.ckpt").write_text("not a checkpoint")
    script = runpy.run_path(str(ROOT / "scripts" / "power_law.py"))
    assert script["main"](arguments) == 2
    assert "ckpt" in capsys.readouterr().err
