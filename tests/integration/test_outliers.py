"""Outlier tasks from the command line: known ones are found, others are made on purpose."""

import pytest

from tests.integration.shell import QUIET, TINY, invoke

FEW = ["dataset=outliers", "dataset.test_count=50", "dataset.tasks=6", *QUIET]


@pytest.mark.slow
def test_the_gate_finds_the_outliers(tmp_path):
    done = invoke("dataset=outliers", "balancer=r_mtgb", *QUIET, cwd=tmp_path).ok()
    assert done.results["info"]["true_outliers"] == ["task8", "task9"]
    assert done.results["info"]["outliers"] == ["task8", "task9"]


def test_gates_are_recorded(tmp_path):
    done = invoke(*FEW, "balancer=r_mtgb", "trainer.max_epochs=12", cwd=tmp_path).ok()
    assert done.results["info"]["gates"].keys() == done.results["metrics"].keys()
    assert "gate/task0" in (done.folder / "history.csv").read_text()
    assert (done.folder / "pictures" / "gates.png").is_file()


def test_labels_spoilt_on_purpose(tmp_path):
    plain = invoke(*TINY, cwd=tmp_path).ok().results
    spoilt = (
        invoke(*TINY, "corrupt_tasks={tasks: [left], kind: permute}", cwd=tmp_path).ok().results
    )
    assert spoilt["info"]["true_outliers"] == ["left"]
    assert spoilt["protocol"] != plain["protocol"]
    wrong = invoke(*TINY, "corrupt_tasks={tasks: [up], kind: permute}", cwd=tmp_path)
    wrong.refused("corrupt_tasks.tasks", "left", "right", "up")
    invoke(*TINY, "corrupt_tasks={share: 1}", cwd=tmp_path).refused("corrupt_tasks", "fraction")


def test_a_table_of_ones_own(tmp_path):
    rows = [f"{i % 7},{'ab'[i % 2]},{(i * 37) % 11}" for i in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["x,group,y", *rows]))
    options = ["dataset=tabular", "dataset.csv=mine.csv", "trainer.max_epochs=1", *QUIET]
    columns = ["dataset.task_column=group", "dataset.target_column=y"]
    metrics = invoke(*options, *columns, cwd=tmp_path).ok().results["metrics"]
    assert metrics.keys() == {"task_a", "task_b"}
    invoke(*options, cwd=tmp_path).refused("task_column", "target_column")
