"""Sorts runs into comparisons, and says what is missing, double or broken."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mtl.report.results import Results
from mtl.report.sweep.comparison import Comparison, Method, Metric, Values
from mtl.report.sweep.methods import Labels, context, seed, tasks
from mtl.report.sweep.runs import Failure, Note, Place, Run, Runs
from mtl.report.sweep.summary import summarize


def compare(
    runs: Runs, *, reference: str = "ew", published: Path | None = None
) -> list[Comparison]:
    """Sorts runs into comparisons, and computes what does not need a test.

    Args:
        runs: What was found.
        reference: Label or balancer of the method that the others are compared with.
        published: Folder of `<dataset>.yaml` files with single-task values.

    Returns:
        One comparison for every data set, protocol and choice of tasks, the largest first.
    """
    shared: dict[tuple[str, str, tuple[str, ...]], list[Run]] = defaultdict(list)
    alone: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs.finished:
        results = run.results
        if results.single:
            alone[results.dataset, results.protocol].append(run)
        else:
            chosen = tuple(sorted(results.metrics))
            shared[results.dataset, results.protocol, chosen].append(run)
    for key, singles in alone.items():
        if not any(key == known[:2] for known in shared):
            chosen = tuple(sorted({task for run in singles for task in run.results.metrics}))
            shared[(*key, chosen)] = []
    comparisons = [
        _comparison(multi, alone[key[:2]], runs.failed, key, reference, published)
        for key, multi in sorted(shared.items(), key=lambda item: -len(item[1]))
    ]
    _name_differences(comparisons, runs)
    return comparisons


def _comparison(
    multi: Sequence[Run],
    singles: Sequence[Run],
    failed: Sequence[Failure],
    key: tuple[str, str, tuple[str, ...]],
    reference: str,
    published: Path | None,
) -> Comparison:
    dataset, protocol, chosen = key
    singles = [run for run in singles if set(run.results.metrics) & set(chosen)]
    first = (multi or singles)[0]
    known = {context(run) for run in (*multi, *singles)}
    lost = [f for f in failed if context(f) in known and set(tasks(f) or chosen) <= set(chosen)]
    options = {k: v for k, v in first.options.items() if (k, v) in context(first)}
    order = [task for task in (multi or singles)[0].results.metrics if task in chosen]
    order += [task for task in chosen if task not in order]
    found = Comparison(dataset, protocol, tuple(order), options, {}, [])
    _fill(found, [*multi, *singles], lost)
    _check_metrics(found)
    _check_seeds(found)
    summarize(found, reference, published)
    return found


def _fill(found: Comparison, runs: Sequence[Run], lost: Sequence[Failure]) -> None:
    label = Labels([*runs, *lost])
    methods: dict[str, Method] = {}
    for run in sorted(runs, key=lambda run: (not run.results.single, run.order)):
        name = label(run)
        _add(methods.setdefault(name, Method(name)), run, found)
    for failure in lost:
        method = methods.setdefault(label(failure), Method(label(failure)))
        if seed(failure) not in method.values or method.single:
            method.failed.append(failure)  # else it was run again
    found.methods = sorted(methods.values(), key=lambda method: not method.single)


def _add(method: Method, run: Run, found: Comparison) -> None:
    """Counts a run; of two runs of the same method, seed and task the later one counts."""
    own = _values(run.results, found.tasks)
    present = method.values[run.results.seed]
    twice = sorted({metric.task for metric in own} & {metric.task for metric in present})
    if twice:
        same = all(present.get(metric) == value for metric, value in own.items())
        earlier = [r for r in method.runs[run.results.seed] if set(twice) & set(r.results.metrics)]
        text = (
            f"{method.label}, seed {run.results.seed}: {run.name} counts and "
            f"{', '.join(r.name for r in earlier)} does not, for {', '.join(twice)}. "
            f"Their values are {'the same' if same else 'not the same'}{_differing(run, earlier)}."
        )
        found.notes.append(Note("duplicate", text))
        method.runs[run.results.seed] = [
            r for r in method.runs[run.results.seed] if not set(r.results.metrics) <= set(twice)
        ]
    present.update(own)
    method.runs[run.results.seed].append(run)


def _differing(run: Place, others: Iterable[Place]) -> str:
    keys = {
        key
        for other in others
        for key in {**run.options, **other.options}
        if run.options.get(key) != other.options.get(key)
    }
    return f"; they were started with different {', '.join(sorted(keys))}" if keys else ""


def _values(results: Results, chosen: Sequence[str]) -> Values:
    return {
        Metric(task, name): value
        for task in chosen
        for name, value in results.metrics.get(task, {}).items()
        if name != "loss" or name in results.higher_is_better.get(task, {})
    }


def _check_metrics(found: Comparison) -> None:
    """Sets the directions; leaves out metrics that some runs lack, and runs that diverged."""
    runs = [run for method in found.methods for own in method.runs.values() for run in own]
    directions: dict[Metric, set[bool | None]] = defaultdict(set)
    having: dict[Metric, int] = defaultdict(int)
    finite: set[Metric] = set()
    trained = [task for run in runs for task in run.results.metrics]
    for run in runs:
        for metric, value in _values(run.results, found.tasks).items():
            known = run.results.higher_is_better.get(metric.task, {})
            directions[metric].add(known.get(metric.name))
            having[metric] += 1
            if math.isfinite(value):
                finite.add(metric)
    for metric, all_ in directions.items():
        if having[metric] < trained.count(metric.task):
            _leave_out(found, metric, f"{metric} is not in every run: left out.")
        elif metric not in finite:
            _leave_out(found, metric, f"{metric} is not finite in any run: left out.")
        else:
            found.directions[metric] = all_.pop() if len(all_) == 1 else None
            if found.directions[metric] is None:
                text = f"{metric}: whether higher is better is not known. It is shown, and is in"
                found.notes.append(Note("direction", f"{text} no gain, rank or test."))
    rank = {task: index for index, task in enumerate(found.tasks)}
    found.directions = dict(sorted(found.directions.items(), key=lambda item: rank[item[0].task]))
    for method in found.methods:
        _leave_out_diverged(found, method)


def _leave_out(found: Comparison, metric: Metric, text: str) -> None:
    found.notes.append(Note("metric", text))
    for method in found.methods:
        for values in method.values.values():
            values.pop(metric, None)


def _leave_out_diverged(found: Comparison, method: Method) -> None:
    for number, values in list(method.values.items()):
        bad = [str(metric) for metric, value in values.items() if not math.isfinite(value)]
        if bad:
            names = ", ".join(run.name for run in method.runs[number])
            text = f"{method.label}, seed {number} ({names}): {', '.join(bad)} is not finite."
            found.notes.append(Note("diverged", f"{text} This seed is in none of its numbers."))
            for run in method.runs.pop(number):
                method.failed.append(Failure(run.folder, run.name, f"not finite: {bad}"))
            del method.values[number]


def _check_seeds(found: Comparison) -> None:
    for method in found.methods:
        if not method.values:
            continue  # its failures are noted
        lacking = {
            task: [s for s in found.seeds if not any(m.task == task for m in method.values[s])]
            for task in found.tasks
        }
        method.values = {s: values for s, values in sorted(method.values.items()) if values}
        whole = sorted(set.intersection(*(set(seeds) for seeds in lacking.values())))
        parts = {task: sorted(set(seeds) - set(whole)) for task, seeds in lacking.items()}
        missing = [f"seeds {whole}"] if whole else []
        missing += [f"seeds {seeds} of {task}" for task, seeds in parts.items() if seeds]
        if missing:
            text = f"{method.label} has no values of {', '.join(missing)}. Its means are over the"
            text += " others; comparisons are over the seeds that both methods have."
            found.notes.append(Note("missing seeds", text))


def _name_differences(comparisons: list[Comparison], runs: Runs) -> None:
    """Shows of the options those in which comparisons differ, and says that there are several."""
    keys = {key for c in comparisons for key in c.options}
    common = {k for k in keys if len({c.options.get(k) for c in comparisons}) == 1}
    for index, comparison in enumerate(comparisons):
        options = {k: v for k, v in comparison.options.items() if k not in common}
        comparisons[index] = replace(comparison, options=options)
    if len(comparisons) > 1:
        listed = "; ".join(f"{c.title}: protocol {c.protocol}" for c in comparisons)
        text = f"The runs are not all comparable, and each group is compared on its own: {listed}."
        runs.notes.insert(0, Note("protocols", text))
