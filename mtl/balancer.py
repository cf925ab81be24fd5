"""The whole procedure that turns the losses of a step into gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from mtl.aggregation import adapt
from mtl.engine import Combined, Objectives, accumulate
from mtl.errors import ConfigError, NonFiniteError
from mtl.parts import (
    Aggregator,
    Combiner,
    Needs,
    Part,
    Regularizer,
    Scalarizer,
    Sharpness,
    Transform,
)
from mtl.scalarization import EqualWeighting
from mtl.step import Engine, Level, Step

P = TypeVar("P", bound=Part)


@dataclass(frozen=True)
class Report:
    """What a balancer did in one step, detached, for logs and plots.

    Attributes:
        tasks: Names of the tasks with labels in this step; rows of what follows.
        losses: Their losses on the global batch, `[a]`.
        weights: Effective weight of each in the gradient of the shared parameters, `[a]`;
            `None` for aggregators.
        gramian: Inner products of the objectives' gradients, `[k, k]`, where they were needed.
        nonfinite: Tasks with a non-finite loss, or a non-finite row where rows are computed; if
            there are any, no gradient was added.
        scalars: What else there is to log.
    """

    tasks: tuple[str, ...]
    losses: Tensor | None = None
    weights: Tensor | None = None
    gramian: Tensor | None = None
    nonfinite: tuple[str, ...] = ()
    scalars: dict[str, Tensor] = field(default_factory=dict)


class Balancer(nn.Module):
    """`sharpness(regularizers(combine(transforms(losses))))`, each slot exchangeable.

    In a hand-written loop::

        step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
        optimizer.zero_grad()
        balancer.backward(step)
        optimizer.step()

    Args:
        combine: A `Scalarizer`, `Weighting` or `Aggregator`, or one of TorchJD's aggregators and
            weightings. Default: equal weighting.
        transforms: Maps of the losses, in order; by name or in a sequence. `None` entries are
            left out.
        regularizers: Scalars added after the combination.
        sharpness: Wraps all of the above.
        level: Where gradients are compared: at the shared `parameters` (exact; one backward pass
            through the backbone a task) or at the `representation` (one such pass in all).
        head_grad: `own`: each head follows its own objective; `weighted`: with the weight that the
            objective has in the shared gradient. Default: what the combiner says.
        on_nonfinite: What a NaN or infinite loss does (or row of the Jacobian, where rows are
            computed): `skip` the step (no gradient is added) or `raise`.
        max_nonfinite: More than so many skipped steps in a row raise as well.
        max_rows: Rows of gradients by the shared parameters that are kept at a time; with more
            objectives the others are differentiated again where they are needed, see
            `mtl.streaming`. Only for combiners that look at the Gramian alone. Default: all.
        engine: For combiners that look at the Gramian alone: `auto` keeps the tasks' gradients by
            large linear layers, and those at the representation behind linear heads, as factors
            where products of factors take fewer multiplications; `gramian` wherever that is exact
            (with several processes at the representation only); `rows` nowhere. The result is the
            same up to rounding.

    With a single task there is nothing to combine: every combiner gives the plain gradient.

    Raises:
        ConfigError: A part does not fit its slot, or an option is not one of those listed.
    """

    skipped_steps: Tensor

    def __init__(
        self,
        combine: Combiner | None = None,
        *,
        transforms: Mapping[str, Transform | None] | Sequence[Transform] | None = None,
        regularizers: Mapping[str, Regularizer | None] | Sequence[Regularizer] | None = None,
        sharpness: Sharpness | None = None,
        level: Level = "parameters",
        head_grad: Literal["own", "weighted"] | None = None,
        on_nonfinite: Literal["skip", "raise"] = "skip",
        max_nonfinite: int = 20,
        max_rows: int | None = None,
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        combine = EqualWeighting() if combine is None else adapt(combine)
        _check_choice("level", level, ("parameters", "representation"))
        _check_choice("head_grad", head_grad, (None, "own", "weighted"))
        _check_choice("on_nonfinite", on_nonfinite, ("skip", "raise"))
        _check_choice("engine", engine, get_args(Engine))
        if max_nonfinite < 0:
            raise ConfigError(f"`max_nonfinite` should be 0 or more. Got {max_nonfinite}.")
        if isinstance(combine, Scalarizer) and head_grad == "own":
            raise ConfigError(
                f'`head_grad` of a scalarizer should be "weighted": {type(combine).__name__} '
                'differentiates one scalar. Got "own". Leave it out, or choose a weighting.'
            )
        if isinstance(combine, Aggregator) and head_grad == "weighted":
            raise ConfigError(
                f'`head_grad` of an aggregator should be "own": {type(combine).__name__} has no '
                'weights. Got "weighted". Leave it out, or choose a weighting.'
            )
        self.combine = _check_part("combine", combine, Combiner)
        self.transforms = _modules("transforms", transforms, Transform)
        self.regularizers = _modules("regularizers", regularizers, Regularizer)
        self.sharpness = (
            None if sharpness is None else _check_part("sharpness", sharpness, Sharpness)
        )
        _check_max_rows(max_rows, combine, level)
        self.level: Level = level
        self.max_rows = max_rows
        self.engine: Engine = engine
        self.head_grad = head_grad or combine.head_grad
        self.on_nonfinite = on_nonfinite
        self.max_nonfinite = max_nonfinite
        self._nonfinite_in_a_row = 0
        self.register_buffer("skipped_steps", torch.zeros((), dtype=torch.int64))
        if self.sharpness is not None:
            self.sharpness.wrap(self)

    @property
    def needs(self) -> Needs:
        """What the parts together ask of a step."""
        needs = Needs.REPRESENTATION if self.level == "representation" else Needs.LOSSES
        for part in self._parts:
            needs |= part.needs
        return needs

    def clusters(self, tasks: Sequence[str]) -> list[list[str]]:
        """The tasks behind each objective: one group a task, or fewer where a transform merges.

        Args:
            tasks: Their names, in order.
        """
        groups = [[name] for name in tasks]
        for transform in self._transforms:
            groups = transform.merge(groups)
        return groups

    def together(self, tasks: Sequence[str]) -> list[list[str]]:
        """Groups of tasks whose gradients this balancer does not tell apart in the next step.

        Where every task has its own inputs, those of a group can go through the backbone at
        once. A backward pass of one objective then costs no more than its own samples.

        Args:
            tasks: Their names, in order.
        """
        slots = (self.combine, *self.transforms.values(), *self.regularizers.values())
        wrapping = () if self.sharpness is None else (self.sharpness,)
        apart = self.level == "parameters" and any(p.compares for p in (*slots, *wrapping))
        return self.clusters(tasks) if apart else [list(tasks)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the parts learn, as groups for an optimizer, without weight decay.

        One group for each learning rate that parts ask for; those that ask for none come first.
        """
        rates: dict[Tensor, float] = {}
        for part in self._parts:
            if part.learning_rate is not None:
                rates |= dict.fromkeys(part.parameters(), part.learning_rate)
        groups: dict[float | None, dict[str, Any]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                rate = rates.get(parameter)
                own = {"params": [], "weight_decay": 0.0} | ({} if rate is None else {"lr": rate})
                groups.setdefault(rate, own)["params"].append(parameter)
        return sorted(groups.values(), key=lambda group: "lr" in group)

    def backward(self, step: Step) -> Report:
        """Adds the balanced gradients of a step to `.grad`.

        Args:
            step: Losses and what they can be differentiated by. Its graph is used up.

        Returns:
            Losses, weights and Gramian, detached.

        Raises:
            NonFiniteError: A loss or gradient is not finite, and the policy is to raise, or it
                was so too often in a row.
            UnsupportedError: The step cannot give what a part needs.
        """
        try:
            step.check_finite()
            combined = self._combine(step)
        except NonFiniteError as error:
            return self._skip(step, error)
        accumulate(combined.gradients)
        self._nonfinite_in_a_row = 0
        return Report(
            tasks=step.present,
            losses=step.values,
            weights=combined.weights,
            gramian=combined.gramian,
            scalars=combined.scalars,
        )

    # --------------------------------------------------------- what a sharpness builds on

    def gradients(self, step: Step) -> Combined:
        """Everything below the sharpness slot; the step's graph is used up."""
        try:
            combined = self.combined(self.objectives(step))
        finally:
            step.release()
        combined.scalars.update(step.scalars)
        return combined

    def objectives(self, step: Step) -> Objectives:
        """The step's losses after the transforms, and the regularizers."""
        return Objectives(
            step,
            self._transforms,
            learned=[p for p in self.parameters() if p.requires_grad],
            extra={name: part(step) for name, part in self.regularizers.items()},
            level=self.level,
            head_grad=self.head_grad,
            engine="rows" if Needs.JACOBIAN in self.needs else self.engine,
            max_rows=self.max_rows,
        )

    def combined(self, objectives: Objectives) -> Combined:
        """What the combiner makes of objectives, as `objectives` gives them or moved elsewhere."""
        if objectives.single:
            combined = objectives.minimize(objectives.values.sum())
        else:
            combined = self.combine.combine(objectives)
        combined.scalars.update(objectives.scalars)
        return combined

    # ------------------------------------------------------------------------------------------

    def on_epoch_start(self, epoch: int) -> None:
        """Tells all parts that an epoch begins; in a hand-written loop, call it yourself.

        Args:
            epoch: Its number, from 0.
        """
        for part in self._parts:
            part.on_epoch_start(epoch)

    def after_step(self, step: Step) -> None:
        """Tells the parts that ask for it that the optimizer has stepped.

        Args:
            step: The step whose gradients it used, made with `needs=balancer.needs`.
        """
        for part in self._parts:
            if Needs.AFTER_STEP in part.needs:
                part.after_step(step)

    def _combine(self, step: Step) -> Combined:
        if not step.present:
            return Combined([])
        self._announce(step)
        sharpness = self.sharpness
        combined = self.gradients(step) if sharpness is None else sharpness(step, self)
        combined.scalars.update(step.scalars)
        return combined

    def _announce(self, step: Step) -> None:
        """Tells the parts which tasks are present."""
        index: slice | Tensor = slice(None)
        if len(step.present) < len(step.tasks):
            positions = [step.tasks.index(name) for name in step.present]
            index = torch.tensor(positions, device=step.values.device)
        for part in self._parts:
            part.present = index
        for transform in self._transforms:
            transform.present = index
            index = transform.outputs()
        combiners = [part for part in self._parts if isinstance(part, Combiner)]
        for module in (m for combiner in combiners for m in combiner.modules()):
            if isinstance(module, Part):  # it sees objectives, which may not be the tasks
                module.present = index

    def _skip(self, step: Step, error: NonFiniteError) -> Report:
        self._nonfinite_in_a_row += 1
        self.skipped_steps += 1
        if self.on_nonfinite == "raise" or self._nonfinite_in_a_row > self.max_nonfinite:
            raise error
        return Report(tasks=step.present, losses=step.values, nonfinite=error.tasks)

    @property
    def _transforms(self) -> list[Transform]:
        return cast("list[Transform]", list(self.transforms.values()))

    @cached_property
    def _parts(self) -> list[Part]:
        return [module for module in self.modules() if isinstance(module, Part)]


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"`{name}` should be one of {choices}. Got {value!r}.")


def _check_max_rows(max_rows: int | None, combine: Combiner, level: Level) -> None:
    if max_rows is None:
        return
    if max_rows < 1:
        raise ConfigError(f"`max_rows` should be 1 or more. Got {max_rows}.")
    parts = [module for module in combine.modules() if isinstance(module, Part)]
    if any(Needs.JACOBIAN in part.needs for part in parts):
        raise ConfigError(
            "`max_rows` should go with a combiner that looks at the Gramian alone. Got "
            f"{type(combine).__name__}, which needs all rows at once. Leave `max_rows` out, or "
            "choose a weighting."
        )
    if level != "parameters":
        raise ConfigError(
            f'`max_rows` is about rows of parameters: `level` should be "parameters". Got '
            f"{level!r}. Leave `max_rows` out."
        )


def _check_part(slot: str, part: P, kind: type[P]) -> P:
    if not isinstance(part, kind):
        raise ConfigError(
            f"`{slot}` should be a {kind.__name__}. Got {part!r}. The classes in mtl.parts say "
            "what each slot takes; other things need an adapter."
        )
    return part


def _modules(
    slot: str, parts: Mapping[str, P | None] | Sequence[P] | None, kind: type[P]
) -> nn.ModuleDict:
    named = parts.items() if isinstance(parts, Mapping) else [(None, part) for part in parts or ()]
    chosen: dict[str, P] = {}
    for key, part in named:
        if part is not None:
            name = type(part).__name__.lower() if key is None else key
            if name in chosen:
                raise ConfigError(
                    f"`{slot}` should have one {type(part).__name__}. Got several: give them "
                    'names, as in {"first": ..., "second": ...}.'
                )
            chosen[name] = part
    return nn.ModuleDict({name: _check_part(slot, part, kind) for name, part in chosen.items()})
