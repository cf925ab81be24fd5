"""A run of Rep-MTL: what it logs, and the power-law exponents of its checkpoint."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.integration.shell import TINY, environment, invoke
from tests.support import ROOT, assert_same


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
    run = invoke(*TINY, "balancer=rep_mtl", cwd=tmp_path).ok()
    columns = (run.folder / "history.csv").read_text().splitlines()[0].split(",")
    logged = {c.removeprefix("balancer/") for c in columns}
    assert logged >= {"regularizer/tsr", "regularizer/csa", "csa/positive", "csa/negative"}
    assert logged >= {f"{name}/gradient_norm" for name in ("tsr", "csa", "tasks")}
    pytest.importorskip("weightwatcher")
    done = power_law(f"ckpt={run.last}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"backbone +│ \d+\.\d\d +│ 2 ", done.stdout), done.stdout
    assert "head left" in done.stdout
    assert done.stderr == ""


def test_without_its_terms_it_is_its_control(tmp_path):
    """To the bit, with both strengths 0."""
    none = [f"balancer.regularizers.{name}.strength=0" for name in ("tsr", "csa")]
    epochs = [*TINY, "trainer.max_epochs=2"]
    first = invoke(*epochs, "balancer=rep_mtl", *none, cwd=tmp_path).ok()
    second = invoke(*epochs, "balancer=ew_log", cwd=tmp_path).ok()
    assert first.results["metrics"] == second.results["metrics"]
    assert_same(first.checkpoint["state_dict"], second.checkpoint["state_dict"])


def test_exponent_against_its_formula():
    """`1 + n / sum ln(x / x_min)` over the eigenvalues x of W^T W from x_min on.

    x_min is the one with the least Kolmogorov-Smirnov distance to the fitted law.
    """
    pytest.importorskip("weightwatcher")
    torch.manual_seed(0)
    layer = nn.Linear(80, 120)
    script = runpy.run_path(str(ROOT / "scripts" / "power_law.py"))
    (alpha,) = script["exponents"](nn.Sequential(layer))
    spectrum = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False) ** 2
    fits = []
    for least in np.sort(spectrum)[:-1]:
        tail = np.sort(spectrum[spectrum >= least])
        fitted = 1 + len(tail) / np.log(tail / least).sum()
        above = np.arange(len(tail)) / len(tail)
        distance = np.abs(1 - (tail / least) ** (1 - fitted) - above).max()
        fits.append((distance, fitted))
    assert alpha == pytest.approx(min(fits)[1], rel=1e-4)


@pytest.mark.parametrize("arguments", [[], ["ckpt=no.ckpt"], ["ckpt=text.ckpt"], ["no.ckpt"]])
def test_what_is_no_checkpoint(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.ckpt").write_text("not a checkpoint")
    script = runpy.run_path(str(ROOT / "scripts" / "power_law.py"))
    assert script["main"](arguments) == 2
    assert "ckpt" in capsys.readouterr().err
