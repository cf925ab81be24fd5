"""From a batch to the step that a balancer works on: forward pass and losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mtl.errors import TaskError
from mtl.factors import LinearCall, record_linear_calls
from mtl.model import MultiTaskModel, Outputs
from mtl.parts import Needs
from mtl.second_order import InputGradients, Pointwise, twice_differentiable
from mtl.sharding import is_sharded
from mtl.task import Task, evaluate_all

if TYPE_CHECKING:
    from mtl.replay import Replay
    from mtl.step import Step

Context = Callable[[], contextlib.AbstractContextManager[Any]]
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Task name -> loss and number of labelled elements."""


class Evaluation:
    """Runs a model on one batch and takes the losses, as often as it is called.

    Args:
        make: The class of what it makes.
        model: See `Step.evaluate`, as all that follows.
        tasks: In the order of rows.
        batch: `(inputs, targets)`.
        needs: What the balancer will ask.
        together: Groups of tasks that go through the backbone at once.
        context: In which forward passes run.

    Attributes:
        separable: Whether heads that are not asked for may be left out. Those that draw must draw
            in the same order: then all of them run.

    Raises:
        TaskError: A batch without any known task.
    """

    def __init__(
        self,
        make: type[Step],
        model: MultiTaskModel,
        tasks: Sequence[Task],
        batch: tuple[Any, Mapping[str, Tensor]],
        needs: Needs,
        together: Sequence[Sequence[str]] | None,
        context: Context,
    ) -> None:
        self.separable = False
        self._inputs, self._targets = batch
        self._known = [task for task in tasks if task.name in self._targets]
        if not self._known:
            raise TaskError(
                f"Expected targets for at least one of {[task.name for task in tasks]}. Got "
                f"targets named {sorted(self._targets)}."
            )
        self._make, self._model, self._context = make, model, context
        self._tasks = tasks
        self._needs = needs
        self._groups = model.parameter_groups()
        self._sharded = is_sharded(model.parameters())
        joins = together is not None and getattr(model, "joins", False)
        self._together = together if joins else None

    def __call__(self, again: Replay | None, only: Collection[str] | None = None) -> Step:
        """The step at the present parameters.

        Args:
            again: Calls this once more.
            only: Names of the tasks whose losses are needed. Default: all.
        """
        calls: list[LinearCall] = []
        known = [task for task in self._known if only is None or task.name in only]
        with self._context():
            outputs, layers = self._forward(only, calls)
            pairs = self._losses(known, outputs.predictions)
        if self._sharded:
            pairs = _without_labels(outputs.predictions) | pairs
        step = self._make(
            {
                task.name: pairs[task.name][0] if task.name in pairs else None
                for task in self._tasks
            },
            shared=self._groups.shared,
            specific=self._groups.specific,
            representation=outputs.representation,
            predictions=outputs.predictions,
            counts={name: count for name, (_, count) in pairs.items()},
            recompute=again,
            tied=self._groups.tied,
            linear_calls=calls,
            sharded=self._sharded,
            input_gradients=layers,
            pointwise=_whole_heads(layers, outputs),
        )
        step.training = self._model.training
        return step

    def _forward(
        self, only: Collection[str] | None, calls: list[LinearCall]
    ) -> tuple[Outputs, InputGradients | None]:
        """Predictions, with what is noted of the layers on the way."""
        compared = Needs.GRAMIAN | Needs.JACOBIAN | Needs.REPRESENTATION
        recorder: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self._needs & compared == Needs.GRAMIAN:
            recorder = record_linear_calls(self._model, calls)
        layers: contextlib.AbstractContextManager[InputGradients | None] = contextlib.nullcontext()
        if Needs.SALIENCY in self._needs:
            specific = self._groups.specific.values()
            own = [p for parameters in specific for p in parameters]
            layers = twice_differentiable(self._model, [*own, *self._groups.tied])
        joined = [] if self._together is None else [self._together]
        alone = only if self.separable and isinstance(self._model, MultiTaskModel) else None
        part = {} if alone is None else {"only": alone}
        with recorder, layers as input_gradients:
            return self._model(self._inputs, *joined, **part), input_gradients

    def _losses(self, tasks: Sequence[Task], predictions: Mapping[str, Tensor]) -> Pairs:
        """Of each task, in order.

        Tasks that went through the backbone together and share a loss object are evaluated at once.
        """
        missing = [task.name for task in tasks if task.name not in predictions]
        if missing:
            raise TaskError(
                f"Task {missing[0]!r} has targets in this batch: expected a prediction for it. Got "
                f"predictions named {sorted(predictions)}."
            )
        group = {name: i for i, names in enumerate(self._together or ()) for name in names}
        families: dict[tuple[int | str, int], list[Task]] = {}
        for task in tasks:
            key = (group.get(task.name, task.name), id(task.loss))
            families.setdefault(key, []).append(task)
        pairs: Pairs = {}
        for family in families.values():
            pairs |= evaluate_all(family, predictions, self._targets)
        return {task.name: pairs[task.name] for task in tasks}


def _whole_heads(layers: InputGradients | None, outputs: Outputs) -> dict[str, Pointwise]:
    """The noted convolutions that lead from a task's representation to its prediction."""
    if layers is None:
        return {}
    found = {
        name: call
        for call in layers.pointwise
        for name, prediction in outputs.predictions.items()
        if call.output is prediction
        and len(outputs.representation[name]) == 1
        and call.inputs is outputs.representation[name][0]
    }
    layers.pointwise.clear()
    return found


def _without_labels(predictions: Mapping[str, Tensor]) -> Pairs:
    """Zeros with graphs and no labelled element.

    Processes that shard parameters must all pass the same heads, also those whose part of the
    batch has no labels.
    """
    zeros = {name: prediction.flatten()[:0].sum() for name, prediction in predictions.items()}
    return {name: (zero, zero.new_zeros(())) for name, zero in zeros.items()}
