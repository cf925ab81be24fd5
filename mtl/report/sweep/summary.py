"""What is computed of a comparison without a test: baseline, deltas, ranks, times, memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from scipy.stats import rankdata

from mtl.metrics import delta_m, delta_p
from mtl.report.baseline import published_values
from mtl.report.sweep.comparison import Comparison, Method, Metric, Values
from mtl.report.sweep.runs import Note


def summarize(found: Comparison, reference: str, published: Path | None) -> None:
    """Sets reference and baseline, and of every method deltas, gains, rank, time and memory.

    Args:
        found: A comparison with the values of its methods.
        reference: Label or balancer of the method that the others are compared with.
        published: Folder of `<dataset>.yaml` files with single-task values.
    """
    _choose_reference(found, reference)
    _choose_baseline(found, published)
    _measure(found)
    _rank(found)


def _choose_reference(found: Comparison, name: str) -> None:
    exact = [method for method in found.contenders if method.label == name]
    alike = [m for m in found.contenders if m.label.split()[0] == name]
    candidates = exact or alike
    found.reference = candidates[0] if len(candidates) == 1 else None
    if found.reference is None and found.contenders:
        problem = f"{[m.label for m in alike]} all are {name}" if alike else f"no run of {name}"
        text = f"{problem}: no verdict and no relative time. --reference names another method"
        known = ", ".join(repr(method.label) for method in found.contenders)
        found.notes.append(Note("no reference", f"{text}, of {known}."))


def _choose_baseline(found: Comparison, folder: Path | None) -> None:
    """Single-task values: own runs of all tasks, else published ones, else none."""
    single = next((method for method in found.methods if method.single), None)
    means = single.means if single else {}
    lacking = [task for task in found.tasks if not any(metric.task == task for metric in means)]
    if not lacking:
        counts = sorted({len(single.column(metric)) for metric in means}) if single else []
        number = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        found.baseline = means
        found.source = f"means of the sweep's own single-task runs ({number} a task)"
    else:
        path = folder / f"{found.dataset}.yaml" if folder else None
        known = published_values(path, found.protocol, found.tasks) if path else None
        if known is not None:
            values = {
                Metric(t, name): v for t, own in known.values.items() for name, v in own.items()
            }
            found.baseline = {m: values[m] for m in found.directions if m in values}
            found.source = f"published values: {known.source}"
        _note_no_baseline(found, lacking, bool(known))
    for metric, value in list(found.baseline.items()):
        if metric in found.directed and (value == 0 or not math.isfinite(value)):
            del found.baseline[metric]
            text = f"{metric} is in no delta: its single-task value is {value}, and a relative gain"
            found.notes.append(Note("baseline", f"{text} needs a finite one other than 0."))


def _note_no_baseline(found: Comparison, lacking: Sequence[str], published: bool) -> None:
    if not found.contenders:
        return
    text = f"No single-task runs of protocol {found.protocol} for {', '.join(lacking)}: "
    if published:
        text += f"the deltas are against {found.source}."
    else:
        text += (
            "there is no delta_m and no delta_p. Add them to the sweep with the same options and "
            "balancer=stl, or tasks=[TASK] for each task."
        )
    found.notes.append(Note("no single-task runs", text))


def _measure(found: Comparison) -> None:
    """Deltas, gains over the reference, ranks, times and memory."""
    reference = found.reference.means if found.reference else {}
    for method in found.methods:
        for name, function in (("delta_m", delta_m), ("delta_p", delta_p)):
            deltas = _deltas(found, method, found.baseline, function)
            if deltas:
                method.deltas[name] = deltas
        method.gains = {} if method.single else _deltas(found, method, reference, delta_p)
        infos = [run.results.info for runs in method.runs.values() for run in runs]
        peaks = [info["peak_memory"] for info in infos if info.get("peak_memory")]
        method.memory = max(peaks, default=None)
    base = _seconds_a_step(found.reference) if found.reference else None
    for method in found.contenders:
        own = _seconds_a_step(method)
        method.time = own / base if own and base else None


def _deltas(
    found: Comparison, method: Method, base: Values, delta: Callable[..., float]
) -> dict[int, float]:
    counted = [m for m in found.directed if base.get(m)]
    if {metric.task for metric in counted} != set(found.tasks):
        return {}
    directions = _nested({m: found.directed[m] for m in counted})
    reference = _nested({m: base[m] for m in counted})
    return {
        number: delta(_nested({m: values[m] for m in counted}), reference, directions)
        for number, values in method.values.items()
        if all(metric in values for metric in counted)
    }


def _nested(flat: Mapping[Metric, float]) -> dict[str, dict[str, float]]:
    nested: dict[str, dict[str, float]] = defaultdict(dict)
    for (task, name), value in flat.items():
        nested[task][name] = value
    return nested


def _rank(found: Comparison) -> None:
    ranks = [
        rankdata([m.means[metric] * (-1 if higher else 1) for m in found.contenders])
        for metric, higher in found.directed.items()
    ]
    if len(found.contenders) > 1 and ranks:
        for method, own in zip(found.contenders, zip(*ranks, strict=True), strict=True):
            method.rank = float(fmean(own))


def _seconds_a_step(method: Method) -> float | None:
    infos = [run.results.info for runs in method.runs.values() for run in runs]
    times = [
        info["seconds"] / info["steps"]
        for info in infos
        if info.get("seconds") and info.get("steps") and not info.get("resumed")
    ]
    return median(times) if times else None
