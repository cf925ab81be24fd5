"""What flat minima cost: a step of every kind of sharpness beside the same method without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.speed.gradients import GradientCost, Run
from benchmarks.speed.memory import in_own_processes, peak_bytes
from benchmarks.speed.networks import NETWORKS, cnn
from benchmarks.speed.tables import Table, spread
from benchmarks.speed.timing import Contender, interleave, timed
from mtl import Balancer
from mtl.aggregation import PCGradWeighting
from mtl.sharpness import JointSAM, Sharpness, TaskSAM

_STEPS = 12  # of a training in small, from its start to its end
_NUMBER = 4  # bytes of a float32

KINDS = {
    "pcgrad": None,
    "`f_mtl`, a perturbation for every task": TaskSAM,
    "joint perturbation, decomposed": lambda: TaskSAM(perturbation="joint"),
    "`g_sam`": lambda: JointSAM(norm="separate"),
    "`task_sam_fast`": lambda: TaskSAM(perturbation="joint", every=4, reuse=False),
}
_BASE = next(iter(KINDS))
_UNITS = {  # forward passes and backward passes a step, for T tasks
    "`f_mtl`, a perturbation for every task": lambda t: (1 + t, 2 * t),
    "joint perturbation, decomposed": lambda t: (2, 2 * t),
    "`g_sam`": lambda t: (2, 1 + t),
}


def tables(rounds: int, networks: Sequence[str]) -> Iterator[Table]:
    """A table a network: time and memory of PCGrad with and without."""
    for name in networks:
        description, problem = _problem(name)
        times = interleave({k: _contender(problem, k) for k in KINDS}, rounds=rounds, warmup=1)
        found = in_own_processes(_measure, [(name, kind) for kind in KINDS])
        peaks = {kind: found[name, kind] for kind in KINDS}
        rows = []
        for kind in KINDS:
            extra = (peaks[kind] - peaks[_BASE]) / _NUMBER / problem.num_shared
            ratio = spread(times.ratio(kind, _BASE))
            rows.append([kind, ratio, _expected(kind, problem.num_tasks), f"{extra:+.2f}"])
        title = f"{name}: {description}, P = {problem.num_shared:,}"
        heads = ["pcgrad with", "time", "by passes", "peak memory (P numbers)"]
        yield Table(f"sharpness {name}", title, heads, rows)


def _problem(name: str) -> tuple[str, GradientCost]:
    if name == "W2x40":
        return "the CNN of W2, 40 tasks, batch 8", cnn(40, 8)
    description, make = NETWORKS[name]
    return description, make()


def _contender(problem: GradientCost, kind: str) -> Contender:
    """CPU seconds a step; of a training in small where not all steps are alike."""
    steps = 1 if kind == _BASE or kind in _UNITS else _STEPS
    contender = timed(_run(problem, kind, steps))
    return lambda: contender() / steps


def _run(problem: GradientCost, kind: str, steps: int = _STEPS) -> Run:
    make = KINDS[kind]
    sharpness: Sharpness | None = make() if make else None
    return problem.training(Balancer(PCGradWeighting(), sharpness=sharpness), steps)


def _expected(kind: str, tasks: int) -> str:
    """The ratio by passes alone, a backward pass as long as two forward."""
    if kind not in _UNITS:
        return ""
    forward, backward = _UNITS[kind](tasks)
    return f"{(forward + 2 * backward) / (1 + 2 * tasks):.2f}"


def _measure(case: tuple[str, str]) -> int:
    name, kind = case
    steps = 1 if kind == _BASE or kind in _UNITS else 4
    return peak_bytes(_run(_problem(name)[1], kind, steps))
