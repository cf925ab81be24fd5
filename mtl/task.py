"""What a task is: a name, a head, a loss, and metrics with a direction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mtl.errors import TaskError
from mtl.losses import Loss, SampleLoss, labelled

_NAME = r"[A-Za-z_]\w*"


@dataclass(frozen=True, eq=False)
class Task:
    """One objective. The order of tasks is the order of rows everywhere.

    Args:
        name: An identifier, unique in a run; it names columns, log keys and checkpoint entries.
        head: The task's own network, from the representation to a prediction.
        loss: `(prediction, target) -> scalar`, a mean over labelled elements. An
            `mtl.losses.Loss` knows which elements are labelled; any other callable (say
            `torch.nn.MSELoss()`) sees the labelled samples only: those whose target is not
            entirely NaN (floats) or negative (integers).
        metrics: Metrics by name. Each has `higher_is_better` set, which gives its direction.
        check_shapes: Compare the shapes of prediction and target before the loss broadcasts them
            silently. Switch it off for losses that define their own relation.
        position: Where the task lies among ordered tasks, for clustering them; for denoising the
            log SNR.

    Raises:
        TaskError: The name is no identifier, the loss is not callable, or a metric has no
            direction.

    Example:
        >>> from torch import nn
        >>> Task("age", head=nn.Linear(8, 1), loss=nn.L1Loss()).name
        'age'
    """

    name: str
    head: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    check_shapes: bool = True
    position: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name) or hasattr(nn.ModuleDict(), self.name):
            raise TaskError(
                "`name` of a task should be an identifier (letters, digits, _) that is no "
                f"attribute of torch.nn.ModuleDict. Got name={self.name!r}."
            )
        if not callable(self.loss):
            raise TaskError(f"`loss` of task {self.name!r} should be callable. Got {self.loss!r}.")
        if not isinstance(self.loss, Loss):
            object.__setattr__(self, "loss", SampleLoss(self.loss))
        for key, metric in self.metrics.items():
            if not re.fullmatch(_NAME, key):
                raise TaskError(
                    f"Metric names of task {self.name!r} should be identifiers (letters, digits, "
                    f"_). Got {key!r}."
                )
            if getattr(metric, "higher_is_better", None) is None:
                raise TaskError(
                    f"Metric {key!r} of task {self.name!r} has no direction: expected "
                    "`higher_is_better` True or False. Set it in a subclass of "
                    f"{type(metric).__name__}."
                )

    def evaluate(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and number of labelled elements.

        Args:
            prediction: Output of the head, `[B, ...]`.
            target: Labels, `[B, ...]`.

        Returns:
            The mean loss over labelled elements (a zero attached to the graph if there are none)
            and their number, both scalars.

        Raises:
            TaskError: Prediction and target do not fit together.
        """
        name = self.name
        return evaluate_all([self], {name: prediction}, {name: target})[name]

    def update(self, metrics: MetricCollection, prediction: Tensor, target: Tensor) -> None:
        """Updates `metrics` with the labelled samples of a batch."""
        rows = labelled(target)
        if not bool(rows.all()):
            prediction, target = prediction[rows], target[rows]
        if len(target):
            metrics.update(prediction, target)

    def check(self, prediction: Tensor, target: Tensor) -> None:
        """Raises `TaskError` where the two do not fit together, if `check_shapes`."""
        if not self.check_shapes:
            return
        shape, expected = tuple(prediction.shape), tuple(target.shape)
        if target.is_floating_point():
            fits = shape == expected
        else:  # class indices: the prediction has one more dimension, at position 1
            logits = len(shape) > 1 and shape[1] > 1 and shape[:1] + shape[2:] == expected
            fits = shape == expected or logits
        if not fits:
            kind = "the target's shape" if target.is_floating_point() else "[B, classes, ...]"
            raise TaskError(
                f"Head and target of task {self.name!r} do not fit: the prediction should have "
                f"{kind}. Got prediction {shape} and target {expected} ({target.dtype}). Change "
                "the head's output size or the target; a loss that relates other shapes needs "
                "Task(..., check_shapes=False)."
            )


def evaluate_all(
    tasks: Sequence[Task], predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """`Task.evaluate` of tasks that share one loss object, by task name.

    Args:
        tasks: At least one.
        predictions: Task name -> output of the head.
        targets: Task name -> labels.

    Raises:
        TaskError: A prediction and a target do not fit together.
    """
    names = [task.name for task in tasks]
    chosen, labels = [predictions[name] for name in names], [targets[name] for name in names]
    for task, prediction, target in zip(tasks, chosen, labels, strict=True):
        task.check(prediction, target)
    loss = tasks[0].loss
    assert isinstance(loss, Loss)
    try:
        pairs = loss.each(chosen, labels)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise TaskError(
            f"The loss of task {', '.join(map(repr, names))} failed on a prediction of shape "
            f"{tuple(chosen[0].shape)} and a target of shape {tuple(labels[0].shape)}, "
            f"{labels[0].dtype}: {error}"
        ) from error
    for name, (value, _) in zip(names, pairs, strict=True):
        if value.dim() != 0:
            raise TaskError(
                f"The loss of task {name!r} should be a scalar. Got shape "
                f'{tuple(value.shape)}. Use reduction="mean".'
            )
    return dict(zip(names, pairs, strict=True))


def check_tasks(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Returns the tasks as a tuple.

    Raises:
        TaskError: There is none, or two have the same name.
    """
    names = [task.name for task in tasks]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates or not names:
        raise TaskError(f"Expected at least one task and distinct names. Got {names}.")
    return tuple(tasks)
