"""Forward, backward and combination on one batch, by several means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import Batch
from mtl import Balancer, MultiTaskModel, Step, Task

Run = Callable[[], None]
"""Fills `.grad` of a model of its own, once a call."""


class GradientCost:
    """Ways to the gradients of one batch of one problem.

    Args:
        model: Makes a model and its tasks, the same initial weights every time.
        batch: `(inputs, targets)`.
    """

    def __init__(
        self, model: Callable[[], tuple[MultiTaskModel, list[Task]]], batch: Batch
    ) -> None:
        self._model = model
        self._batch = batch

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self._model()[1])

    @property
    def num_shared(self) -> int:
        """P, the number of shared parameters."""
        return sum(p.numel() for p in self._model()[0].parameter_groups().shared)

    def plain_backward(self) -> Run:
        """Equal weighting by hand: forward and one backward pass of the sum of the losses."""
        model, tasks = self._model()

        def step() -> None:
            model.zero_grad()
            sum_of_losses(model, tasks, *self._batch).backward()

        return step

    def task_backwards(self) -> Run:
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

        return step

    def balanced(self, balancer: Balancer) -> Run:
        """Forward, and what a balancer does to fill `.grad` and after the optimizer's step."""
        return self._balanced(balancer, *self._model())

    def training(self, balancer: Balancer, steps: int) -> Run:
        """The same so many times, told that these are a training from its start to its end."""
        model, tasks = self._model()

        def run() -> None:
            for i in range(steps):
                self._balanced(balancer, model, tasks, progress=i / steps)()

        return run

    def passes(self, balancer: Balancer) -> tuple[int, int]:
        """How often a step goes forwards and backwards through the backbone."""
        model, tasks = self._model()
        counts = [0, 0]

        def backward(_: Tensor) -> None:
            counts[1] += 1

        def forward(_: object, __: object, output: Tensor) -> None:
            counts[0] += 1
            if output.requires_grad:
                output.register_hook(backward)

        first = next(m for m in model.backbone.modules() if [*m.parameters(recurse=False)])
        first.register_forward_hook(forward)
        self._balanced(balancer, model, tasks)()
        return counts[0], counts[1]

    def _balanced(
        self,
        balancer: Balancer,
        model: MultiTaskModel,
        tasks: list[Task],
        progress: float | None = None,
    ) -> Run:
        def run() -> None:
            model.zero_grad()
            step = Step.evaluate(model, tasks, self._batch, needs=balancer.needs)
            step.progress = progress
            report = balancer.backward(step)
            if report.nonfinite:
                raise RuntimeError(f"Expected finite losses and rows. Got {report}.")
            balancer.after_step(step)

        return run

    def torchjd(self, aggregator: Any, *, chunk: int | None, optimize: bool) -> Run:
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

        return step


def sum_of_losses(model: MultiTaskModel, tasks: list[Task], inputs: Any, targets: Any) -> Tensor:
    """The sum of the losses, as a hand-written loop takes it."""
    predictions = model(inputs).predictions
    return torch.stack(
        [task.loss(predictions[task.name], targets[task.name]) for task in tasks]
    ).sum()
