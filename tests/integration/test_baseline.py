"""Single-task runs are the baseline of multi-task runs with the same protocol, and of no other."""

from statistics import fmean

import pytest

from tests.integration.shell import TINY, invoke, read

DATA = [*TINY, "trainer.max_epochs=2", "dataset.train_count=1000", "dataset.test_count=200"]


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    return tmp_path_factory.mktemp("baseline")


@pytest.fixture(scope="module")
def singles(cwd):
    """Runs with one task; none of them is enough alone."""
    runs = {}
    for task in ("left", "right"):
        done = invoke(*DATA, f"tasks=[{task}]", cwd=cwd).ok()
        assert done.results["metrics"].keys() == {task}
        assert done.results["delta_p"] is None
        assert "delta_p" in done.out
        runs[task] = done.results, read(done.last)
    return runs


@pytest.fixture(scope="module")
def joint(cwd, singles):
    done = invoke(*DATA, "balancer=uw", cwd=cwd).ok()
    return done, done.results, done.checkpoint


def gains(singles, results):
    """Per cent, by hand: all metrics of the digits are accuracies, higher is better."""
    return [
        100 * (results["metrics"][t]["accuracy"] - single["metrics"][t]["accuracy"])
        / single["metrics"][t]["accuracy"]
        for t, (single, _) in singles.items()
    ]  # fmt: skip


def test_baseline_is_found_and_the_gains_are_right(singles, joint):
    done, results, _ = joint
    expected = gains(singles, results)
    assert results["delta_p"] == pytest.approx(fmean(expected))
    assert results["delta_m"] == pytest.approx(-fmean(expected))
    assert "mean of 1 own single-task run" in results["baseline"]
    assert results["baseline"] in done.out
    for (task, (single, _)), gain in zip(singles.items(), expected, strict=True):
        row = next(line for line in done.out.splitlines() if line.startswith(f"│ {task} "))
        assert f"{single['metrics'][task]['accuracy']:.4f}" in row
        assert f"{gain:+.2f} %" in row
    for name in ("delta_m", "delta_p"):
        row = next(line for line in done.out.splitlines() if name in line)
        assert f"{results[name]:+.2f} %" in row


def test_single_and_multi_task_runs_have_the_same_model(singles, joint):
    def shapes(checkpoint, part):
        return {k: v.shape for k, v in checkpoint["state_dict"].items() if k.startswith(part)}

    _, _, together = joint
    for task, (_, alone) in singles.items():
        assert shapes(alone, "model.backbone") == shapes(together, "model.backbone")
        head = f"model.heads.{task}"
        assert shapes(alone, "model.heads") == shapes(together, head) != {}


def test_seeds_are_averaged(singles, joint, cwd):
    """Baselines of another seed and balancer count as well: the protocol is the same."""
    extra = invoke(*DATA, "tasks=[left]", "seed=5", "balancer=rlw", cwd=cwd).ok().results
    done = invoke(*DATA, cwd=cwd).ok()
    mean = fmean([r["metrics"]["left"]["accuracy"] for r in (extra, singles["left"][0])])
    row = next(line for line in done.out.splitlines() if line.startswith("│ left "))
    assert f"{mean:.4f}" in row
    assert "mean of 1 to 2 own single-task" in done.results["baseline"]


@pytest.mark.parametrize(
    "option",
    ["trainer.max_epochs=1", "optimizer.lr=3e-3", "dataset.train_count=900", "model.head.hidden=8"],
)
def test_another_protocol_has_no_baseline(option, joint, cwd):
    done = invoke(*DATA, option, cwd=cwd).ok()
    assert done.results["delta_p"] is None
    assert done.results["baseline"] is None
    assert "No single-task runs of this protocol" in done.out


def test_named_baseline(singles, joint, cwd, tmp_path):
    """A folder elsewhere is taken where it is named; without it there is none."""
    alone = invoke(*DATA, cwd=tmp_path).ok()
    assert alone.results["delta_p"] is None
    named = invoke(*DATA, f"baseline={cwd}", cwd=tmp_path).ok()
    assert named.results["delta_p"] is not None
    assert invoke(*DATA, "baseline=null", cwd=cwd).ok().results["delta_p"] is None


def test_separate_networks_in_one_run(tmp_path):
    alone = invoke(*DATA, "balancer=stl", cwd=tmp_path).ok()
    assert alone.results["shared"] is False
    assert alone.results["delta_p"] is None
    shared = invoke(*DATA, cwd=tmp_path).ok()
    assert shared.results["baseline"] == "mean of 1 own single-task run(s) a task"
    values = {t: m["accuracy"] for t, m in alone.results["metrics"].items()}
    gains = [100 * (shared.results["metrics"][t]["accuracy"] / v - 1) for t, v in values.items()]
    assert shared.results["delta_p"] == pytest.approx(fmean(gains))


def test_named_baseline_of_another_protocol(singles, cwd, tmp_path):
    done = invoke(*DATA, "trainer.max_epochs=1", f"baseline={cwd}", cwd=tmp_path)
    done.refused("No single-task runs", "left", "right", str(cwd), "tasks=[TASK]")
    assert done.results["metrics"].keys() == {"left", "right"}  # the training was not in vain


def test_baseline_that_is_not_there(tmp_path):
    done = invoke(*DATA, "baseline=runs/metrics.json", cwd=tmp_path)
    done.refused("baseline", "runs/metrics.json")
    assert not list(tmp_path.rglob("last.ckpt"))  # said before the training, not after it
