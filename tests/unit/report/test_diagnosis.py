"""What gradients do to each other, in words."""

import csv

import pytest

from benchmarks.speed.sweeps import write_history, write_run
from mtl.report.sweep import compare, read_runs
from mtl.report.sweep.analysis import Analysis
from mtl.report.sweep.diagnosis import Diagnosis, diagnose
from mtl.report.sweep.series import read_history

HEADER = ["step", "layer", "task_a", "task_b", "cosine", "norm_a", "norm_b"]


def record(folder, conflicts, norms, steps=100):
    """`conflicts`: layer -> share of the steps in which segmentation and depth conflict."""
    with (folder / "diagnosis.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for step in range(steps):
            for task, norm in norms.items():
                writer.writerow([step, "all", task, task, 1.0, norm, norm])
            for layer, share in conflicts.items():
                cosine = -0.3 if step < share * steps else 0.3
                writer.writerow([step, layer, "segmentation", "depth", cosine, 1, 1])
                writer.writerow([step, layer, "depth", "normal", 0.1, 1, 1])


def test_the_sentence(tmp_path):
    run = write_run(tmp_path / "a", "ew", 0)
    conflicts = {"all": 0.61, "encoder.0": 0.2, "encoder.3": 0.9}
    record(run, conflicts, {"segmentation": 1.0, "depth": 1.0, "normal": 8.0})
    (comparison,) = compare(read_runs([tmp_path]))
    assert diagnose(comparison)["ew"].sentence == (
        "normal dominates (norm 8x), segmentation and depth conflict in 61% of steps, "
        "mostly in encoder.3 (90%)"
    )


def test_peace(tmp_path):
    run = write_run(tmp_path / "a", "ew", 0)
    record(run, {"all": 0.0}, {"segmentation": 1.0, "depth": 1.2})
    (comparison,) = compare(read_runs([tmp_path]))
    sentence = diagnose(comparison)["ew"].sentence
    assert "no task dominates (largest norm 1.2x, depth)" in sentence
    assert "hardly conflict (at most 0% of steps" in sentence


def test_without_a_diagnosis_the_recorded_cosines_speak(tmp_path):
    run = write_run(tmp_path / "a", "ew", 0)
    write_history(run, 0, epochs=5)
    (comparison,) = compare(read_runs([tmp_path]))
    found = Analysis.of(comparison).diagnoses["ew"]
    _, values, share = read_history(run / "history.csv")["cosine/segmentation~depth"]
    assert share == pytest.approx((values < 0).mean())
    assert f"segmentation and depth conflict in {share:.0%} of steps" in found.sentence


@pytest.mark.parametrize("text", ["step,layer\n1,all\n", ",".join(HEADER) + "\n1,all,a,b,x,1,1\n"])
def test_a_broken_file_is_named(tmp_path, text):
    run = write_run(tmp_path / "a", "ew", 0)
    (run / "diagnosis.csv").write_text(text)
    (comparison,) = compare(read_runs([tmp_path]))
    assert diagnose(comparison) == {}
    assert "diagnosis.csv" in comparison.notes[-1].text


def test_a_cut_history_is_named_and_the_values_count(tmp_path):
    run = write_run(tmp_path / "a", "ew", 0)
    (run / "history.csv").write_text("step,epoch,val/miou/segmentation\n1,0,0.5\n2,0")
    (comparison,) = compare(read_runs([tmp_path]))
    analysis = Analysis.of(comparison)
    assert analysis.series == {}
    assert "history.csv" in comparison.notes[-1].text
    assert len(comparison.methods[0].values) == 1


def test_dominance_needs_two_tasks():
    assert Diagnosis(norms={"a": 3.0}).sentence == ""
    assert Diagnosis(norms={"a": 3.0, "b": 0.0}).sentence == "a alone has a gradient"
