"""What a report on a sweep says, and what it refuses to count."""

import csv
import math
import re

import numpy as np
import pytest

from benchmarks.speed.sweeps import TASKS, write_history, write_options, write_run
from mtl.metrics import delta_m, delta_p
from mtl.report import FAILURE, FILE
from mtl.report.sweep import compare, judge, read_runs
from mtl.report.sweep.command import main
from mtl.report.sweep.tables import latex, markdown, tabulate
from mtl.report.sweep.verdict import conclude

ONE = {"depth": TASKS["depth"]}


def sweep(folder, methods=("stl", "ew", "pcgrad"), seeds=(0, 1, 2)):
    for number, (name, seed) in enumerate((m, s) for m in methods for s in seeds):
        write_run(folder / f"{number}_{name},{seed}", name, seed, gain=-0.02 * (name == "ew"))
    return folder


def only(folder, **options):
    runs = read_runs([folder])
    (comparison,) = compare(runs, **options)
    return comparison, runs


def kinds(notes):
    return [note.kind for note in notes]


def method(comparison, label):
    return next(m for m in comparison.methods if m.label == label)


def test_deltas_are_those_against_the_means_of_the_single_tasks(tmp_path):
    comparison, runs = only(sweep(tmp_path))
    assert runs.notes == comparison.notes == []
    single = [run.results for run in runs.finished if run.results.balancer == "stl"]
    names = single[0].higher_is_better
    base = {t: {k: np.mean([r.metrics[t][k] for r in single]) for k in names[t]} for t in names}
    for run in (run.results for run in runs.finished if run.results.balancer == "ew"):
        values = {task: {k: run.metrics[task][k] for k in names[task]} for task in names}
        ew = method(comparison, "ew").deltas
        assert ew["delta_p"][run.seed] == pytest.approx(delta_p(values, base, names))
        assert ew["delta_m"][run.seed] == pytest.approx(delta_m(values, base, names))
    assert "own single-task runs (3 a task)" in comparison.source
    assert "loss" not in {metric.name for metric in comparison.directions}


def test_single_task_runs_may_be_one_a_task(tmp_path):
    sweep(tmp_path, methods=("ew", "pcgrad"))
    for task in TASKS:
        for seed in (0, 1, 2):
            folder = tmp_path / f"9_{task}_{seed}"
            write_run(folder, "ew", seed, tasks={task: TASKS[task]}, options=[f"tasks=[{task}]"])
    comparison, _ = only(tmp_path)
    assert comparison.notes == []
    assert comparison.methods[0].single
    assert len(comparison.baseline) == sum(map(len, TASKS.values()))


def test_ranks_and_relative_time(tmp_path):
    for seed in (0, 1):
        for name, gain, seconds in (("ew", 0.0, 10), ("good", 0.1, 25), ("bad", -0.1, 10)):
            info = {"seconds": seconds, "steps": 100, "peak_memory": 7_000_000}
            write_run(tmp_path / f"{name}{seed}", name, seed, gain=gain, info=info)
    comparison, _ = only(tmp_path)
    assert [method(comparison, n).rank for n in ("good", "ew", "bad")] == [1, 2, 3]
    assert method(comparison, "good").time == 2.5
    assert "| 7 |" in markdown(tabulate(comparison))


def test_time_of_a_resumed_run_is_not_that_of_all_its_steps(tmp_path):
    sweep(tmp_path, methods=("ew",))
    info = {"seconds": 1, "steps": 1000, "resumed": True}
    write_run(tmp_path / "9", "pcgrad", 0, info=info)
    comparison, _ = only(tmp_path)
    assert method(comparison, "pcgrad").time is None


def test_options_of_a_balancer_make_a_method_where_they_differ(tmp_path):
    for seed in (0, 1):
        for c in ("0.2", "0.5"):
            options = ["balancer.level=representation", f"balancer.combine.c={c}"]
            write_run(tmp_path / f"{c}_{seed}", "cagrad", seed, options=options)
        write_run(tmp_path / f"ew_{seed}", "ew", seed, options=["logger=csv"])
    comparison, _ = only(tmp_path)
    assert {m.label for m in comparison.methods} == {
        "cagrad combine.c=0.2",
        "cagrad combine.c=0.5",
        "ew",
    }


def test_runs_of_different_protocols_are_compared_apart(tmp_path):
    sweep(tmp_path)
    for seed in (0, 1):
        options = ["optimizer.lr=0.1"]
        write_run(tmp_path / f"lr_{seed}", "ew", seed, protocol="ffff", gain=5, options=options)
    runs = read_runs([tmp_path])
    first, second = compare(runs)
    assert kinds(runs.notes) == ["protocols"]
    assert "optimizer.lr=0.1" in runs.notes[0].text
    assert len(method(first, "ew").values) == 3
    assert len(method(second, "ew").values) == 2
    assert second.source is None


def test_runs_of_other_tasks_are_compared_apart(tmp_path):
    sweep(tmp_path)
    some = {task: TASKS[task] for task in ("depth", "normal")}
    write_run(tmp_path / "some", "ew", 0, tasks=some, options=["tasks=[depth,normal]"])
    runs = read_runs([tmp_path])
    assert [len(c.tasks) for c in compare(runs)] == [3, 2]
    assert kinds(runs.notes) == ["protocols"]


def test_missing_seeds_are_named_and_pairs_are_common_seeds(tmp_path):
    sweep(tmp_path)
    write_run(tmp_path / "x", "uw", 1)
    write_run(tmp_path / "y", "uw", 7)
    comparison, _ = only(tmp_path)
    text = next(note.text for note in comparison.notes if note.text.startswith("uw"))
    assert "seeds [0, 2]" in text
    (verdict,) = (v for v in judge(comparison) if v.method.label == "uw")
    assert list(verdict.differences) == [1]
    assert "cannot be told" in verdict.sentence


def test_of_a_duplicate_the_later_run_counts(tmp_path):
    write_run(tmp_path / "2_a", "ew", 0, gain=0.5)
    write_run(tmp_path / "10_b", "ew", 0, gain=-0.5, options=["callbacks=none"])
    comparison, _ = only(tmp_path)
    (note,) = (note for note in comparison.notes if note.kind == "duplicate")
    assert re.search(r"10_b counts and 2_a does not.*not the same.*different callbacks", note.text)
    (metric, *_) = comparison.directions
    assert method(comparison, "ew").column(metric)[0] < 0.4


def test_broken_failed_and_unfinished_runs_are_named(tmp_path):
    sweep(tmp_path, methods=("stl", "ew"))
    (write_run(tmp_path / "cut", "uw", 0) / FILE).write_text('{"version": 1, "data')
    failed = tmp_path / "failed"
    write_options(failed, ["balancer=mgda", "seed=1", "dataset=rooms"])
    (failed / FAILURE).write_text("Traceback\n  line\nNonFiniteError: <b>depth</b> is not finite\n")
    write_options(tmp_path / "running", ["balancer=dwa", "seed=0", "dataset=rooms"])
    comparison, runs = only(tmp_path)
    assert kinds(runs.notes) == ["unreadable", "failed", "unfinished"]
    assert "NonFiniteError" in runs.notes[1].text
    assert runs.notes[1].details.startswith("Traceback")
    assert {m.label for m in comparison.methods if m.failed} == {"uw", "mgda", "dwa"}
    assert "| `mgda` | failed | - |" in markdown(tabulate(comparison))


def test_failures_stand_beside_the_seeds_that_did_end(tmp_path):
    sweep(tmp_path, methods=("ew",))
    write_options(tmp_path / "lost", ["balancer=ew", "seed=3", "dataset=rooms"])
    write_options(tmp_path / "again", ["balancer=ew", "seed=0", "dataset=rooms"])
    comparison, runs = only(tmp_path)
    assert tabulate(comparison).seeds == ["3, 1 failed"]
    assert kinds(runs.notes) == ["unfinished", "unfinished"]


def test_a_diverged_run_is_in_no_mean(tmp_path):
    sweep(tmp_path)
    run = write_run(tmp_path / "x", "pcgrad", 3)
    (run / FILE).write_text(
        re.sub(r'"mean_angle": [\d.]+', '"mean_angle": NaN', (run / FILE).read_text())
    )
    comparison, _ = only(tmp_path)
    assert "diverged" in kinds(comparison.notes)
    assert list(method(comparison, "pcgrad").values) == [0, 1, 2]
    assert all(math.isfinite(value) for value in method(comparison, "pcgrad").means.values())


def test_a_metric_without_direction_is_shown_and_not_judged(tmp_path):
    for name in ("stl", "ew", "pcgrad"):
        directions = {t: {m: h for m, (h, _) in TASKS[t].items()} for t in TASKS}
        directions["depth"]["relative_error"] = None
        write_run(tmp_path / name, name, 0, higher_is_better=directions)
    comparison, _ = only(tmp_path)
    assert kinds(comparison.notes) == ["direction"]
    assert "| depth relative_error |" in markdown(tabulate(comparison))
    assert len(comparison.directed) == len(comparison.directions) - 1


def test_a_metric_that_some_runs_lack_is_left_out(tmp_path):
    sweep(tmp_path, methods=("ew",))
    write_run(tmp_path / "x", "uw", 0, tasks={**TASKS, "depth": {"absolute_error": (False, 0.4)}})
    comparison, _ = only(tmp_path)
    assert "depth/relative_error is not in every run" in " ".join(n.text for n in comparison.notes)
    assert len(comparison.directions) == 5


def test_without_single_tasks_gains_are_over_the_reference(tmp_path):
    comparison, _ = only(sweep(tmp_path, methods=("ew", "pcgrad")))
    assert kinds(comparison.notes) == ["no single-task runs"]
    assert comparison.source is None
    assert np.mean(list(method(comparison, "ew").gains.values())) == pytest.approx(0, abs=1e-9)
    assert {v.unit for v in judge(comparison)} == {"gain"}
    assert "gain over ew (%)" in markdown(tabulate(comparison))


def test_single_tasks_of_some_tasks_are_no_baseline(tmp_path):
    sweep(tmp_path, methods=("ew", "pcgrad"))
    write_run(tmp_path / "x", "ew", 0, tasks=ONE, options=["tasks=[depth]"])
    comparison, _ = only(tmp_path)
    text = next(n.text for n in comparison.notes if n.kind == "no single-task runs")
    assert "segmentation, normal" in text
    assert not comparison.baseline


def test_published_values_are_named_as_such(tmp_path):
    values = {t: {m: v for m, (_, v) in own.items()} for t, own in TASKS.items()}
    del values["depth"]["relative_error"]  # it may have fewer metrics
    lines = [f"    {t}: {own}" for t, own in values.items()]
    text = "\n".join(["- protocol: 0123456789ab", "  source: Table 3", "  values:", *lines])
    (tmp_path / "rooms.yaml").write_text(text)
    folder = sweep(tmp_path / "runs", methods=("ew",))
    comparison, _ = only(folder, published=tmp_path)
    assert comparison.source == "published values: Table 3"
    assert method(comparison, "ew").deltas["delta_p"]


def test_a_single_task_value_of_0_is_in_no_delta(tmp_path):
    tasks = {**TASKS, "depth": {**TASKS["depth"], "r2": (True, 0.0)}}
    for name in ("stl", "ew"):
        write_run(tmp_path / name, name, 0, tasks=tasks)
    comparison, _ = only(tmp_path)
    assert kinds(comparison.notes) == ["baseline"]
    assert "depth/r2" in comparison.notes[0].text
    assert method(comparison, "ew").deltas["delta_p"]


def test_without_a_reference_there_is_no_verdict(tmp_path):
    comparison, _ = only(sweep(tmp_path, methods=("uw", "pcgrad")))
    assert "no reference" in kinds(comparison.notes)
    assert judge(comparison) == []
    comparison, _ = only(tmp_path, reference="uw")
    assert [v.method.label for v in judge(comparison)] == ["pcgrad"]


def test_three_seeds_are_too_few_and_eight_tell(tmp_path):
    def verdict(count):
        folder = tmp_path / str(count)
        for seed in range(count):
            write_run(folder / f"ew{seed}", "ew", seed)
            write_run(folder / f"uw{seed}", "uw", seed, gain=0.2)
        comparison, _ = only(folder)
        verdicts = judge(comparison)
        return verdicts[0], conclude(verdicts, "ew")

    few, text = verdict(3)
    assert few.p == pytest.approx(0.25)
    assert "Too few seeds to tell" in few.sentence
    assert "fewer than 6 never reach" in text
    assert text.startswith("No method can be told from ew")
    many, text = verdict(8)
    assert many.p == pytest.approx(2 / 2**8)
    assert "better, p = 0.0078" in many.sentence
    assert text.startswith("Better than ew: uw.")


def test_latex_is_escaped_and_marks_the_best(tmp_path):
    comparison, _ = only(sweep(tmp_path, methods=("stl", "ew", "nash_mtl")))
    text = latex(comparison, tabulate(comparison))
    assert r"nash\_mtl & $" in text
    assert r"\multicolumn{2}{c}{depth}" in text
    assert r"\mathbf{" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")][1:]
    assert {line.count("&") for line in rows} == {text.split("}{l")[1].split("}")[0].count("c")}


def test_the_command_writes_every_file(tmp_path, capsys):
    sweep(tmp_path)
    for folder in list(tmp_path.iterdir()):
        write_history(folder, 0, epochs=4)
    assert main([str(tmp_path)]) == 0
    out = tmp_path / "report"
    assert len(list((out / "pictures").glob("*.png"))) == 8
    with (out / "report.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"single task", "ew", "pcgrad"}
    comparison, runs = only(tmp_path)
    assert len(runs.finished) == 9  # the report itself is not taken for a run
    for metric, mean in method(comparison, "ew").means.items():
        assert float(rows["ew"][f"{metric.task} {metric.name}"]) == pytest.approx(mean)
    assert "Too few to tell" in (out / "report.md").read_text()
    assert "Too few to tell" in capsys.readouterr().out
    assert (out / "report.html").stat().st_size < 5e6


def test_nothing_there(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "No finished run" in capsys.readouterr().err
    assert main([str(tmp_path / "absent")]) == 2
    assert "Not there" in capsys.readouterr().err


@pytest.mark.parametrize("names", [("stl",), ("uw",), ("ew", "uw")])
def test_a_report_of_little(tmp_path, names):
    for name in names:
        write_run(tmp_path / name, name, 0, tasks={**ONE, "other": {"error": (False, 1.0)}})
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert ("no verdict" in text) == ("ew" not in names)
