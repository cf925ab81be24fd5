"""A shared backbone with one head a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from mtl.errors import TaskError
from mtl.task import Task, check_tasks


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gives.

    Attributes:
        predictions: Task name -> prediction.
        representation: Task name -> the tensors that enter the task's head. Tasks that share
            their input hold the same tensor objects.
    """

    predictions: dict[str, Tensor]
    representation: dict[str, tuple[Tensor, ...]]


@dataclass(frozen=True)
class ParameterGroups:
    """The trainable parameters of a model.

    Attributes:
        shared: Those that are not one task's own: the backbone's, then the tied ones.
        specific: Task name -> those that belong to its head alone.
        tied: Shared ones that lie in heads, behind the representation.
    """

    shared: list[nn.Parameter]
    specific: dict[str, list[nn.Parameter]]
    tied: list[nn.Parameter]


class Stacked(Mapping[str, Any]):
    """Inputs of tasks, each with its own, in one piece: the rows of one task after another's.

    As a mapping it gives the rows of each task. A model that `joins` tasks takes those of
    neighbours without cutting and copying.

    Args:
        whole: A tensor or a nest of tensors, of as many rows as all tasks have.
        sizes: Task name -> number of its rows, in the order of the rows.
    """

    def __init__(self, whole: Any, sizes: Mapping[str, int]) -> None:
        self.whole = whole
        self.sizes = dict(sizes)
        ends = list(accumulate(self.sizes.values()))
        self._bounds = dict(zip(self.sizes, pairwise([0, *ends]), strict=True))

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Stacked:
        """Copies inputs into one piece."""
        sizes = {name: len(tree_leaves(value)[0]) for name, value in inputs.items()}
        return cls(tree_map(lambda *t: torch.cat(t), *inputs.values()), sizes)

    def rows(self, names: Sequence[str]) -> Any:
        """The rows of some tasks, in one piece."""
        bounds = [self._bounds[name] for name in names]
        if any(end != start for (_, end), (start, _) in pairwise(bounds)):
            return Stacked.of({name: self[name] for name in names}).whole
        start, end = bounds[0][0], bounds[-1][1]
        return tree_map(lambda leaf: leaf[start:end], self.whole)

    def to(self, *args: Any, **options: Any) -> Stacked:
        """The same elsewhere; the arguments are those of `Tensor.to`."""
        return Stacked(tree_map(lambda leaf: leaf.to(*args, **options), self.whole), self.sizes)

    def __getitem__(self, name: str) -> Any:
        return self.rows([name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


class MultiTaskModel(nn.Module):
    """Hard parameter sharing: `prediction_t = head_t(backbone(inputs))`.

    Args:
        backbone: From the inputs to the representation: a tensor, or several in a list, tuple or
            dict (all heads get the whole of it).
        heads: Task name -> head, or the tasks themselves.

    Multi-input data: where `inputs` is a mapping keyed by task names, every task has its own
    inputs, and the backbone runs once a task; or once for several tasks, if it says by an attribute
    `independent_samples = True` that no sample's output depends on another (no BatchNorm). Other
    architectures are modules that answer the same two questions: `forward` gives `Outputs`, and
    `parameter_groups` says who owns what.

    Raises:
        TaskError: No head, or two tasks of the same name.
    """

    def __init__(
        self, backbone: nn.Module, heads: Mapping[str, nn.Module] | Sequence[Task]
    ) -> None:
        super().__init__()
        if not isinstance(heads, Mapping):
            heads = {task.name: task.head for task in check_tasks(heads)}
        if not heads:
            raise TaskError("Expected at least one head. Got none.")
        self.backbone = backbone
        self.heads = nn.ModuleDict(dict(heads))

    @property
    def joins(self) -> bool:
        """Whether tasks with inputs of their own can go through the backbone at once."""
        return bool(getattr(self.backbone, "independent_samples", False))

    def forward(
        self,
        inputs: Any,
        together: Sequence[Sequence[str]] = (),
        only: Collection[str] | None = None,
    ) -> Outputs:
        """Predictions of all tasks (of those in `inputs` if every task has its own).

        Args:
            inputs: What the backbone takes, or task name -> that.
            together: Groups of tasks that go through the backbone at once, if it has
                `independent_samples`; others go alone.
            only: Names of tasks whose predictions are needed; the others are left out.
        """
        chosen = [name for name in self.heads if only is None or name in only]
        if isinstance(inputs, Mapping) and inputs and set(inputs) <= set(self.heads.keys()):
            own = [name for name in inputs if name in chosen]
            features: dict[str, Any] = {}
            for group in together if self.joins else ():
                features |= _joined(self.backbone, inputs, [name for name in group if name in own])
            alone = [name for name in own if name not in features]
            features |= {name: self.backbone(inputs[name]) for name in alone}
        else:
            shared = self.backbone(inputs)
            features = dict.fromkeys(chosen, shared)
        return Outputs(
            predictions={name: self.heads[name](value) for name, value in features.items()},
            representation={
                name: tuple(leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))
                for name, value in features.items()
            },
        )

    def parameter_groups(self) -> ParameterGroups:
        """Who owns which trainable parameter, in one pass over the modules."""
        backbone = list(self.backbone.parameters())
        heads = {name: list(head.parameters()) for name, head in self.heads.items()}
        uses = Counter(id(p) for parameters in heads.values() for p in parameters)
        uses.update(id(p) for p in backbone)
        tied = {
            id(p): p
            for parameters in heads.values()
            for p in parameters
            if uses[id(p)] > 1 and p.requires_grad
        }
        for parameter in backbone:
            tied.pop(id(parameter), None)
        return ParameterGroups(
            shared=[*(p for p in backbone if p.requires_grad), *tied.values()],
            specific={
                name: [p for p in parameters if p.requires_grad and uses[id(p)] == 1]
                for name, parameters in heads.items()
            },
            tied=list(tied.values()),
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters that are not one task's own: the backbone's, and tied ones."""
        return self.parameter_groups().shared

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """Trainable parameters that belong to the head of `name` alone."""
        return self.parameter_groups().specific[name]


def optimizer_groups(model: nn.Module) -> Iterator[dict[str, Any]]:
    """The trainable parameters in groups for an optimizer.

    Args:
        model: A module in it may have `optimizer_options`, a dict such as `{"lr": 0.05}`, for its
            own parameters; those of equal options share a group. All others are in the first one.
    """
    options: dict[int, Any] = {
        id(p): module.optimizer_options
        for module in model.modules()
        if hasattr(module, "optimizer_options")
        for p in module.parameters(recurse=False)
    }
    groups: dict[str, dict[str, Any]] = {repr({}): {"params": []}}
    for parameter in model.parameters():
        if parameter.requires_grad:
            own = options.get(id(parameter), {})
            groups.setdefault(repr(own), {"params": [], **own})["params"].append(parameter)
    return (group for group in groups.values() if group["params"])


def _joined(backbone: nn.Module, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Features of several tasks by one evaluation of the backbone."""
    if not names:
        return {}
    stacked = inputs if isinstance(inputs, Stacked) else Stacked.of({n: inputs[n] for n in names})
    sizes = [stacked.sizes[name] for name in names]
    leaves, spec = tree_flatten(backbone(stacked.rows(names)))
    parts = zip(*(leaf.split(sizes) for leaf in leaves), strict=True)
    return {name: tree_unflatten(list(own), spec) for name, own in zip(names, parts, strict=True)}
