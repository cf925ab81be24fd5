"""Weights that are reused for some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.aggregation.torchjd import adapt
from mtl.errors import ConfigError, UnsupportedError
from mtl.parts import Aggregator, Combiner, Scalarizer

if TYPE_CHECKING:
    from mtl.engine import Combined, Objectives


class Every(Combiner):
    """Asks a weighting for weights in every n-th step and reuses them in between.

    In the steps between no rows are computed: one backward pass of the weighted sum (and, where
    heads follow their own objective, one more through the heads alone). A step then costs
    `(T + n - 1) / n` passes instead of T on average, and the direction is exact for the weights
    that it has.

    Args:
        combine: A `Weighting`, or another combiner that weighs objectives; a TorchJD one is
            adapted.
        num_tasks: Number of tasks (of objectives, where a transform changes it).
        every: n, at least 1. Under accumulation, micro-batches count.

    In YAML::

        combine:
          _target_: mtl.aggregation.Every
          num_tasks: ${num_tasks}
          every: 10
          combine: {_target_: mtl.aggregation.MGDAWeighting}

    or `balancer/combine=every balancer/combine@balancer.combine.combine=mgda`.

    It is Nash-MTL's `update_weights_every`, for all methods. TorchJD's option of that name saves
    the solver only, since rows are computed before it is asked. A step with a task that has no
    weight yet asks for weights at once. A step that was skipped, because a row was not finite, does
    not count.

    Raises:
        ConfigError: `combine` is a scalarizer or an aggregator, which have no weights to keep.
        UnsupportedError: `combine` does not weigh objectives.

    References:
        Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya. Multi-Task Learning as a
        Bargaining Game. ICML 2022. https://arxiv.org/abs/2202.01017
    """

    weights: Tensor
    known: Tensor
    age: Tensor

    def __init__(self, combine: Combiner | nn.Module, num_tasks: int, *, every: int) -> None:
        super().__init__()
        adapted = adapt(combine)
        if not isinstance(adapted, Combiner) or isinstance(adapted, Aggregator | Scalarizer):
            raise ConfigError(
                f"`combine` should be a Weighting: others have no weights to keep. Got {combine!r}."
            )
        if every < 1:
            raise ConfigError(f"`every` should be 1 or more. Got {every}.")
        self.combiner = adapted
        self.every = every
        self.head_grad = adapted.head_grad  # type: ignore[misc]
        self.register_buffer("weights", torch.zeros(num_tasks))
        self.register_buffer("known", torch.zeros(num_tasks, dtype=torch.bool))
        self.register_buffer("age", torch.tensor(every))

    @property
    def compares(self) -> bool:
        """Whether weights are due, unless a task without a weight comes first."""
        return int(self.age) >= self.every and self.combiner.compares

    def combine(self, objectives: Objectives) -> Combined:
        """Weighs the gradients, or repeats the last weights."""
        index = self.present
        if int(self.age) < self.every and bool(self.known[index].all()):
            self.age += 1
            return objectives.repeat(self.weights[index].clone())
        recorder: Any = _Recorder(objectives)
        combined = self.combiner.combine(recorder)
        if recorder.weights is None:
            raise UnsupportedError(
                f"`Every` needs a combiner that weighs objectives. {type(self.combiner).__name__} "
                "does not. Use it without `Every`."
            )
        self.weights[index] = recorder.weights.detach().to(self.weights)
        self.known[index] = True
        self.age.fill_(1)
        return combined


class _Recorder:
    """Objectives that note the weights which they are given."""

    def __init__(self, objectives: Objectives) -> None:
        self.objectives = objectives
        self.weights: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objectives, name)

    def weigh(self, weights: Tensor) -> Combined:
        self.weights = weights
        return self.objectives.weigh(weights)
