"""Sweeps on several workers leave what one process leaves."""

import importlib.util
import json

import pytest

from tests.integration.shell import TINY, invoke, shell

SWEEP = ["-m", *TINY, "seed=0,1", "hydra.sweep.dir=runs", "hydra.sweep.subdir=${hydra.job.num}"]
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def values(folder):
    results = [json.loads(p.read_text()) for p in sorted(folder.glob("*/metrics.json"))]
    return [(r["seed"], r["metrics"], r["validation"]) for r in results]


@pytest.fixture(scope="module")
def sequential(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("sequential")
    shell(*SWEEP, cwd=cwd).ok()
    return values(cwd / "runs")


def missing(plugin):
    try:
        return importlib.util.find_spec(plugin) is None
    except ModuleNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_workers_leave_what_one_process_leaves(tmp_path, sequential, launcher):
    if missing(PLUGINS[launcher]):
        pytest.skip(f"needs the plugin {PLUGINS[launcher]}")
    shell(*SWEEP, f"launcher={launcher}", cwd=tmp_path, HOME=str(tmp_path)).ok()
    assert [seed for seed, _, _ in sequential] == [0, 1]
    assert values(tmp_path / "runs") == sequential


@pytest.mark.slow
def test_a_failed_run_stops_no_other_and_resuming_skips_what_is_complete(tmp_path):
    pytest.importorskip(PLUGINS["joblib"])
    options = ["-m", *TINY, "optimizer.lr=-1,0.001", *SWEEP[-2:], "launcher=joblib"]
    shell(*options, cwd=tmp_path)
    runs = tmp_path / "runs"
    assert "'lr': -1" in (runs / "0" / "error.txt").read_text()
    before = (runs / "1" / "metrics.json").stat().st_mtime_ns
    again = shell(*options, "resume=true", cwd=tmp_path)
    assert again.code == 2
    assert "is complete" in again.out
    assert (runs / "1" / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_two_workers_may_make_the_same_cache(tmp_path):
    """The rooms are drawn once and kept; here both workers find none."""
    pytest.importorskip(PLUGINS["joblib"])
    rooms = [
        "dataset=scenes",
        *(f"dataset.{part}_count=8" for part in ("train", "val", "test")),
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
    ]
    found = []
    for launcher in ("joblib", "null"):
        cwd = tmp_path / launcher
        cwd.mkdir()
        shell("-m", *rooms, "seed=0,1", *SWEEP[-2:], f"launcher={launcher}", cwd=cwd).ok()
        found.append(values(cwd / "runs"))
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_launcher_that_is_not_installed_names_its_extra(tmp_path):
    invoke("-m", *TINY, "hydra/launcher=absent", cwd=tmp_path).refused("joblib", "pip install")
