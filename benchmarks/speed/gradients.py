"""Forward, backward and combination on one batch, by several means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import Batch
from benchmarks.speed.timing import timed
from mtl import Balancer, MultiTaskModel, Step, Task

Contender = Callable[[], float]


class GradientCost:
    """Contenders on one batch of one problem.

    Args:
        model: Makes a model and its tasks, the same initial weights every time.
        batch: `(inputs, targets)`.
    """

    def __init__(
        self, model: Callable[[], tuple[MultiTaskModel, list[Task]]], batch: Batch
    ) -> None:
        self._model = model
        self._batch = batch

    def plain_backward(self) -> Contender:
        """Equal weighting by hand: forward and one backward pass of the sum of the losses."""
        model, tasks = self._model()

        def step() -> None:
            model.zero_grad()
            sum_of_losses(model, tasks, *self._batch).backward()

        return timed(step)

    def task_backwards(self) -> Contender:
        """The floor: forward and one `autograd.grad` a task, results thrown away."""
        model, tasks = self._model()
        groups = model.parameter_groups()

        def step() -> None:
            inputs, targets = self._batch
            predictions = model(inputs).predictions
            for i, task in enumerate(tasks):
                loss = task.loss(predictions[task.name], targets[task.name])
                last = i + 1 == len(tasks)
                parameters = groups.shared + groups.specific[task.name]
                torch.autograd.grad(loss, parameters, retain_graph=not last)

        return timed(step)

    def balanced(self, balancer: Balancer) -> Contender:
        """Forward, and what a balancer does to fill `.grad`."""
        model, tasks = self._model()

        def step() -> None:
            model.zero_grad()
            balancer.backward(Step.evaluate(model, tasks, self._batch, needs=balancer.needs))

        return timed(step)

    def torchjd(self, aggregator: Any, *, chunk: int | None, optimize: bool) -> Contender:
        """Forward, and TorchJD's way to fill `.grad` (extra `[bench]`)."""
        from torchjd.autojac import jac_to_grad, mtl_backward

        model, tasks = self._model()
        groups = model.parameter_groups()
        own = [groups.specific[task.name] for task in tasks]

        def step() -> None:
            model.zero_grad()
            inputs, targets = self._batch
            outputs = model(inputs)
            losses = [
                task.loss(outputs.predictions[task.name], targets[task.name]) for task in tasks
            ]
            features = list(outputs.representation[tasks[0].name])
            mtl_backward(
                losses,
                features=features,
                tasks_params=own,
                shared_params=groups.shared,
                parallel_chunk_size=chunk,
            )
            jac_to_grad(groups.shared, aggregator, optimize_gramian_computation=optimize)

        return timed(step)


def sum_of_losses(model: MultiTaskModel, tasks: list[Task], inputs: Any, targets: Any) -> Tensor:
    """The sum of the losses, as a hand-written loop takes it."""
    predictions = model(inputs).predictions
    return torch.stack(
        [task.loss(predictions[task.name], targets[task.name]) for task in tasks]
    ).sum()
