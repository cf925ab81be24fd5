"""`resume=true`: the same command goes on where a run or a sweep ended."""

import json
import os

import pytest

from mtl.rerun import continued
from tests.integration.shell import TINY, invoke

SWEEP = ["-m", *TINY, "seed=0,1", "optimizer.lr=0.001,-1"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep in which every second run fails."""
    cwd = tmp_path_factory.mktemp("sweep")
    failed = invoke(*SWEEP, cwd=cwd)
    assert failed.code == 2
    assert "'lr': -1" in failed.err
    (folder,) = (cwd / "multirun").iterdir()
    return cwd, folder


def jobs(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_a_failed_run_stops_no_other(sweep):
    _, folder = sweep
    done = [(path / "metrics.json").is_file() for path in jobs(folder)]
    assert done == [True, False, True, False]
    for path, complete in zip(jobs(folder), done, strict=True):
        assert (path / "error.txt").is_file() != complete
    assert "'lr': -1" in (jobs(folder)[1] / "error.txt").read_text()


def test_the_same_command_skips_what_is_complete_and_resumes_the_rest(sweep):
    cwd, folder = sweep
    first, _, second, _ = jobs(folder)
    before = {path: (path / "metrics.json").read_text() for path in (first, second)}
    (second / "metrics.json").unlink()  # as if killed before its end
    again = invoke(*SWEEP, "resume=true", cwd=cwd)
    assert again.code == 2  # two runs fail still
    assert [path.name for path in (cwd / "multirun").iterdir()] == [folder.name]
    assert f"{first} is complete" in again.out
    assert f"Resuming from {second}" in again.out
    assert (first / "metrics.json").read_text() == before[first]
    old, new = json.loads(before[second]), json.loads((second / "metrics.json").read_text())
    assert new["metrics"] == old["metrics"]
    assert new["info"]["steps"] == old["info"]["steps"]


def test_a_single_run(tmp_path):
    invoke(*TINY, cwd=tmp_path).ok()
    other = invoke(*TINY, "seed=1", cwd=tmp_path).ok().folder
    again = invoke(*TINY, "seed=1", "resume=true", cwd=tmp_path).ok()
    assert f"{other} is complete" in again.out


def test_without_an_earlier_run_it_starts_anew(tmp_path):
    assert invoke(*TINY, "resume=true", cwd=tmp_path).ok().results["seed"] == 0


def test_which_folder_is_continued(tmp_path):
    runs = tmp_path / "outputs"
    for name, options in (("a/1", "[x=1, y=2]"), ("a/2", "[x=1, y=2]"), ("b/3", "[x=1]")):
        (runs / name / ".hydra").mkdir(parents=True)
        (runs / name / ".hydra" / "overrides.yaml").write_text(options)
        os.utime(runs / name)

    def find(*arguments):
        return continued(arguments, runs=runs, sweeps=tmp_path / "multirun")

    assert find("y=2", "x=1", "resume=true") == runs / "a" / "2"
    assert find("x=1", "resume=True") == runs / "b" / "3"
    assert find("x=1") is None
    assert find("x=2", "resume=true") is None
    assert find("-m", "x=1", "resume=true") is None
    assert find("x=1", "resume=true", "hydra.run.dir=elsewhere") is None
