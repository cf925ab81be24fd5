"""Directions are those of the references, for all families; and the command says so."""

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.accuracy.families import COUNTS, FAMILIES, rows_of
from tests.support import ROOT

pytest.importorskip("torchjd.aggregation")

from benchmarks.accuracy.measure import error, errors, measure
from benchmarks.accuracy.methods import METHODS

ROWS = np.array([[1.0, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_ours_are_within_a_millionth(name, family, dtype):
    for count in COUNTS:
        matrices = [rows_of(family, count, seed, 300).to(dtype) for seed in (50, 51, 52)]
        found = errors(METHODS[name].ours, matrices)
        assert all(value <= 1e-6 for value in found), (count, found)
        if family != "low rank":
            assert len(found) == len(matrices)


def test_the_command(tmp_path):
    """With methods whose peers need no optional solver."""
    names = ["mgda", "imtl_g", "aligned_mtl", "config", "fairgrad", "pcgrad"]
    path = tmp_path / "errors.csv"
    command = [sys.executable, "-m", "benchmarks.accuracy", "--csv", str(path), "--draws", "1"]
    result = subprocess.run(
        [*command, "--tasks", "3", "10", "--dtypes", "float32", "--methods", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    table = [line.split("|")[1:-1] for line in result.stdout.splitlines() if line[:3] == "| `"]
    assert [row[0].strip(" `") for row in table] == names
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["family"] for row in rows} == set(FAMILIES)
    assert len(rows) == len(names) * len(FAMILIES) * 2
    defined = [row for row in rows if row["draws"] == "1"]
    assert len(defined) >= len(rows) - 2  # FairGrad of dependent gradients
    assert all(float(row["ours worst"]) <= 1e-6 for row in defined)
    # A table that shows no errors at all would be wrong.
    assert any(float(row["torchjd worst"]) > 0.1 for row in defined)


def test_errors_of_directions():
    weights = np.array([1.0, 0.5])  # the direction (1, 1)
    assert error(np.array([3.0, 3.0]), weights, ROWS) == pytest.approx(0.0, abs=1e-15)
    assert error(np.array([1.0, 0.0]), weights, ROWS) == pytest.approx(math.sqrt(0.5))
    assert error(np.array([-1.0, -1.0]), weights, ROWS) == 1.0
    assert error(np.zeros(2), weights, ROWS) == 1.0
    assert error(np.array([math.nan, 1.0]), weights, ROWS) == math.inf


def test_errors_where_the_direction_is_zero():
    opposite = np.array([[2.0, 0.0], [-2.0, 0.0]])
    assert error(np.array([0.1, 0.0]), np.array([0.5, 0.5]), opposite) == pytest.approx(0.05)


@pytest.mark.parametrize(("chosen", "expected"), [(None, [5, 20]), (2, [2, 2])])
def test_draws_are_those_of_the_method_or_of_the_command(chosen, expected):
    names = ["fairgrad", "mgda"]
    found = measure(names, ["gauss"], [2], [torch.float64], draws=chosen, width=8)
    rows = {result.method: result.row["draws"] for result in found}
    assert [rows[name] for name in names] == expected
