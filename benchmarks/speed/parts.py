"""Where the time of a step goes, of equal weighting, of Rep-MTL, and of methods of rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from benchmarks.base import Batch
from benchmarks.speed.tables import Table
from mtl import MultiTaskModel, Step, Task
from mtl.linalg import Product, gramian
from mtl.parts import Combiner, Needs
from mtl.regularizers import csa, tsr

ModelFactory = Callable[[], tuple[MultiTaskModel, list[Task]]]
Laps = dict[str, float]
"""Part of a step -> CPU seconds."""


def parts(
    title: str,
    problem: tuple[ModelFactory, Batch],
    combiners: Mapping[str, Combiner],
    rounds: int,
) -> Table:
    """CPU milliseconds of the parts of a step, medians.

    Args:
        title: Of the problem.
        problem: Makes the model; and the batch.
        combiners: Name -> combiner of rows.
        rounds: Number of rounds that count.
    """
    runs: dict[str, Callable[[], Laps]] = {
        "ew": lambda: equal_weighting(*problem),
        "rep_mtl": lambda: rep_mtl(*problem),
        **{name: lambda c=c: of_rows(*problem, c) for name, c in combiners.items()},  # type: ignore[misc]
    }
    found = [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    names = dict.fromkeys(part for name in ("rep_mtl", *runs) for part in found[0][name])
    rows = [
        [part, *(f"{1000 * statistics.median(r[n].get(part, 0) for r in found):.0f}" for n in runs)]
        for part in names
    ]
    return Table(f"{title}: parts", f"{title}: parts of a step, CPU ms", ("part", *runs), rows)


def equal_weighting(model_and_tasks: ModelFactory, batch: Batch) -> Laps:
    """One pass through heads and backbone."""
    model, tasks = model_and_tasks()
    watch = _Watch()
    step = Step.evaluate(model, tasks, batch)
    heads = [p for name in step.tasks for p in step.specific[name]]
    losses = [loss for loss in step.losses.values() if loss is not None]
    (z,) = step.representation[tasks[0].name]  # type: ignore[index]
    watch.lap("forward")
    there, *_ = torch.autograd.grad(losses, [z, *heads], [torch.ones(())] * len(losses))
    watch.lap("heads, backward")
    torch.autograd.grad(z, step.shared, there)
    watch.lap("backbone, backward")
    return watch.laps


def rep_mtl(model_and_tasks: ModelFactory, batch: Batch) -> Laps:
    """The saliencies, the terms, and one pass of everything."""
    model, tasks = model_and_tasks()
    watch = _Watch()
    step = Step.evaluate(model, tasks, batch, needs=Needs.SALIENCY)
    heads = [p for name in step.tasks for p in step.specific[name]]
    (z,) = step.representation[tasks[0].name]  # type: ignore[index]
    watch.lap("forward")
    found = [gradients[0] for gradients in step.saliencies(1e-8, factored=True).values()]
    raw = [t for s in found for t in ((s.left, s.right) if isinstance(s, Product) else (s,))]
    watch.lap("saliency")
    saliency = [s.flatten(2) for s in found]
    terms = tsr(saliency) + csa(saliency)
    watch.lap("terms, forward")
    tangents = torch.autograd.grad(terms, raw)
    watch.lap("terms, backward")
    losses = [loss for loss in step.losses.values() if loss is not None]
    factors = [*tangents, *[torch.ones(())] * len(losses)]
    total, *_ = torch.autograd.grad([*raw, *losses], [z, *heads], factors)
    watch.lap("heads, backward")
    torch.autograd.grad(z, step.shared, total)
    watch.lap("backbone, backward")
    return watch.laps


def of_rows(model_and_tasks: ModelFactory, batch: Batch, combiner: Combiner) -> Laps:
    """One pass a task, weights from the Gramian, and the weighted sum."""
    model, tasks = model_and_tasks()
    watch = _Watch()
    step = Step.evaluate(model, tasks, batch)
    (z,) = step.representation[tasks[0].name]  # type: ignore[index]
    watch.lap("forward")
    there = [
        torch.autograd.grad(loss, [z, *step.specific[name]])[0]
        for name, loss in step.losses.items()
        if loss is not None
    ]
    watch.lap("heads, backward")
    passes = [torch.autograd.grad(z, step.shared, g, retain_graph=True) for g in there]
    watch.lap("backbone, backward")
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in passes])
    weights = combiner(gramian(jacobian))
    weights.to(jacobian) @ jacobian
    watch.lap("combination")
    return watch.laps


class _Watch:
    """CPU seconds between laps."""

    def __init__(self) -> None:
        self.laps: Laps = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.laps[name], self._last = now - self._last, now
