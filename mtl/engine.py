"""From the objectives of a step to the gradient of every parameter.

Shapes: `a` present tasks, `k` objectives (losses after the transforms), `r` rows (backward
passes), `n` columns (shared parameters, or elements of the representation).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtl.distributed import Held, all_reduce_list
from mtl.errors import NonFiniteError, UnsupportedError
from mtl.rows import Gradients, Products, Rows
from mtl.streaming import StreamedRows

if TYPE_CHECKING:
    from mtl.sharpness.rows import GivenRows
    from mtl.step import Engine, Level, Step
    from mtl.transforms import Transform


@dataclass(frozen=True)
class Combined:
    """What a combiner gives: gradients, and what there is to log."""

    gradients: Gradients
    weights: Tensor | None = None  # [a] effective weights on the losses
    gramian: Tensor | None = None  # [k, k] of the objectives
    scalars: dict[str, Tensor] = field(default_factory=dict)


class Objectives:
    """The k objectives that a combiner sees: the present losses after the transforms.

    Args:
        step: The losses and what they can be differentiated by.
        transforms: Differentiable maps of the losses, in order.
        learned: Parameters of the balancer itself (in transforms and combiner).
        extra: Regularizers by name, added after the combination with weight one.
        level: Where gradients are compared.
        head_grad: `own`: each head follows its own objective; `weighted`: with the weight that
            the objective has in the shared gradient.
        engine: Whether rows of linear layers may stay factors, see `Step.products`; `rows` where
            `jacobian` will be asked for.
        max_rows: Rows of gradients by the shared parameters that may be kept at a time.

    Attributes:
        values: The objectives, `[k]`, with a graph to the losses and to `learned`.
        scalars: Values of the regularizers, to log.

    Raises:
        NonFiniteError: A transform made an objective NaN or infinite.
    """

    def __init__(
        self,
        step: Step,
        transforms: Sequence[Transform] = (),
        *,
        learned: Sequence[Tensor] = (),
        extra: Mapping[str, Tensor] | None = None,
        level: Level = "parameters",
        head_grad: str = "own",
        engine: Engine = "rows",
        max_rows: int | None = None,
    ) -> None:
        self._step = step
        self._max_rows = max_rows
        self._engine: Engine = engine
        self._level: Level = level
        self._transforms = list(transforms)
        self._learned = list(learned)
        self._extra = list((extra or {}).values())
        self._given: GivenRows | None = None
        self._head_grad = head_grad
        self.scalars = {f"regularizer/{k}": v.detach() for k, v in (extra or {}).items()}
        self._losses = step.values.clone().requires_grad_()
        values = self._losses
        for transform in self._transforms:
            values = transform(values)
        self.values = values
        if self._transforms:
            self._check_finite()

    def _check_finite(self) -> None:
        finite = self.values.isfinite().tolist()
        if not all(finite):
            names = self._step.present
            if self._elementwise:
                names = tuple(n for n, ok in zip(names, finite, strict=True) if not ok)
            raise NonFiniteError(*names)

    # ------------------------------------------------------- the same objectives, elsewhere

    def take_extra(self) -> Gradients:
        """Gradients of the regularizers, which are then left out of what is combined."""
        if not self._extra:
            return []
        pairs = self._learned_in_extra()
        gradients = self._step.gradient(None, self._extra, retain_graph=True)
        self._extra = []
        return pairs + _pairs(self._step.parameters, gradients)

    def at(self, step: Step) -> Objectives:
        """These objectives with gradients of another step; values and slopes stay."""
        moved = self._copy()
        moved._step = step
        return moved

    def over(self, rows: GivenRows, *, learned: bool = True) -> Objectives:
        """These objectives with given gradients of the losses; values and slopes stay.

        Args:
            rows: Takes the place of backward passes.
            learned: Whether the balancer's own parameters get their gradient as well.
        """
        moved = self._copy()
        moved._given = rows
        moved._learned = self._learned if learned else []
        return moved

    def _copy(self) -> Objectives:
        moved = copy.copy(self)
        for name in ("gramian", "jacobian", "columns", "_rows"):
            moved.__dict__.pop(name, None)
        return moved

    # ------------------------------------------------- the ways to make gradients of them

    def minimize(self, scalar: Tensor) -> Combined:
        """Gradients of a scalar function of `values`, by one backward pass in all."""
        slopes = self.slopes(scalar)
        weights = slopes.weights
        assert weights is not None
        if self._given is None:
            gradients = self._pass(weights)
        else:
            gradients = self._given.combine(weights, weights)
        return Combined(gradients + slopes.gradients, weights=weights)

    def slopes(self, scalar: Tensor) -> Combined:
        """What `minimize` gives but for the model's gradients: weights, and learned parameters."""
        weights, *learned = torch.autograd.grad(
            scalar,
            [self._losses, *self._learned],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return Combined(self._learned_in_extra() + self._scaled(learned), weights=weights)

    def weigh(self, weights: Tensor) -> Combined:
        """Gradients of `weights @ values`, from the rows behind `gramian`."""
        weights = weights.detach().to(self._losses)
        on_losses = weights if self._derivative is None else weights @ self._derivative
        on_rows = weights if self._by_objective else on_losses
        rows, joined = self._rows, self._joined
        gradients = rows.combine(on_rows, self._head_factors(on_rows), joined)
        gradients += self._rest(weights, joined=bool(joined))
        return Combined(gradients, weights=on_losses, gramian=self.gramian)

    def repeat(self, weights: Tensor) -> Combined:
        """The gradients that `weigh` gives, without rows: for weights that are known beforehand.

        One backward pass, and where heads follow their own objective one more through the heads.
        """
        if self._given is not None:
            return self.weigh(weights)
        if self._head_grad == "weighted":
            return self.minimize(weights.detach().to(self.values) @ self.values)
        weights = weights.detach().to(self._losses)
        on_losses, on_heads = weights, torch.ones_like(weights)
        if self._derivative is not None:
            on_losses, on_heads = weights @ self._derivative, self._derivative.sum(0)
        step, shared = self._step, self._step.shared
        if step.sharded:
            self._repeat_sharded(on_losses, on_heads)
            return Combined(self._rest(weights), weights=on_losses)
        own = [p for name in step.tasks for p in step.specific[name]]
        heads = step.differentiate(step.cotangents(on_heads), own, retain_graph=True)
        rest = step.differentiate(
            step.cotangents(on_losses), shared, retain_graph=bool(self._extra)
        )
        pairs = _pairs([*shared, *own], all_reduce_list([*rest, *heads], [*shared, *own]))
        return Combined(pairs + self._rest(weights), weights=on_losses)

    def _repeat_sharded(self, on_losses: Tensor, on_heads: Tensor) -> None:
        step = self._step
        columns = chain.from_iterable((step.representation or {}).values())
        tensors = list({id(column): column for column in columns}.values())
        there = step.differentiate(step.cotangents(on_losses), tensors, retain_graph=True)
        step.backward(on_heads, replaced=_pairs(tensors, there), retain_graph=bool(self._extra))

    def follow(self, direction: Tensor, *, held: bool = False) -> Combined:
        """Gradients with `direction`, `[n]`, in the columns of `jacobian`.

        Args:
            direction: For the shared parameters.
            held: It has the columns of `columns` only, those that this process holds.
        """
        rows, joined = self._kept, self._joined
        scaled = direction.detach().to(rows.jacobian) * self._step.scale
        pairs = rows.follow(scaled, self._head_factors(None), joined, held=held)
        ones = torch.ones_like(self.values).detach()
        return Combined(pairs + self._rest(ones, joined=bool(joined)), gramian=self.gramian)

    # --------------------------------------------------------------------- what they are made of

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products of the objectives' gradients, `[k, k]`, float64."""
        gram = self._rows.gramian
        if self._derivative is None or self._by_objective:
            return gram
        derivative = self._derivative.to(gram)
        return derivative @ gram @ derivative.T

    @cached_property
    def jacobian(self) -> Tensor:
        """Gradients of the objectives, `[k, n]`."""
        columns = self.columns
        return columns if self.held is None else self.held.all_gather(columns)

    @property
    def representation(self) -> Tensor:
        """The tensor, `[B, ...]`, detached, whose elements are the columns of `jacobian`.

        Raises:
            UnsupportedError: The columns are others, or of several tensors.
        """
        tensor = self._step.common_representation()
        if self._level != "representation" or tensor is None:
            raise UnsupportedError(
                'Activations are seen at the representation: expected level="representation" and '
                f"one tensor for all tasks. Got level={self._level!r}"
                + (" and several tensors." if tensor is None else ".")
                + " Set balancer.level=representation, or choose another method."
            )
        return tensor.detach()

    @property
    def held(self) -> Held | None:
        """Which columns of `jacobian` this process holds; `None`: all."""
        return self._kept.held

    @cached_property
    def columns(self) -> Tensor:
        """The columns of `jacobian` that this process holds."""
        if self._derivative is None or self._by_objective:
            return self._kept.unscaled()
        if self._elementwise:
            return self._kept.unscaled(self._derivative.diagonal())
        rows = self._kept.unscaled()
        return self._derivative.to(rows) @ rows

    @cached_property
    def _rows(self) -> Products | GivenRows:
        if self._given is not None:
            return self._given
        retain, engine = bool(self._extra), self._engine
        basis = self._derivative if self._by_objective else None
        count = len(self._losses if basis is None else basis)
        if self._max_rows is not None and count > self._max_rows:
            basis = torch.eye(count).to(self._losses) if basis is None else basis
            return StreamedRows(self._step, basis, limit=self._max_rows, retain_graph=retain)
        if basis is not None:
            factors = self._step.factors(len(basis), engine)  # `_by_objective`: at the parameters
            return Rows(self._step, self._level, basis, factors=factors, retain_graph=retain)
        return self._step.products(self._level, engine=engine, retain_graph=retain)

    @property
    def _kept(self) -> Rows | GivenRows:
        rows = self._rows
        # Aggregators do not stream, and their engine is `rows`.
        assert isinstance(rows, Rows) or not isinstance(rows, Products)
        return rows

    @cached_property
    def _derivative(self) -> Tensor | None:
        """`d values / d losses`, `[k, a]`; `None` is the identity."""
        if not self._transforms:
            return None
        if self._elementwise:
            (slopes,) = torch.autograd.grad(self.values.sum(), self._losses, retain_graph=True)
            return slopes.diag()
        rows = [
            torch.autograd.grad(value, self._losses, retain_graph=True, materialize_grads=True)[0]
            for value in self.values
        ]
        return torch.stack(rows)

    @property
    def single(self) -> bool:
        """Whether there is nothing to combine: one task, and one objective."""
        return len(self._step.tasks) == 1 and len(self.values) == 1

    @property
    def _elementwise(self) -> bool:
        """Whether objective i depends on loss i alone."""
        return all(transform.elementwise for transform in self._transforms)

    @property
    def _by_objective(self) -> bool:
        """One pass an objective is cheaper than one a task when there are fewer objectives."""
        fewer = len(self.values) < len(self._losses)
        return fewer and self._level == "parameters" and self._given is None

    def _head_factors(self, on_rows: Tensor | None) -> Tensor | None:
        if self._head_grad == "weighted" and on_rows is not None:
            return on_rows
        if self._derivative is None or self._by_objective:
            return None
        return self._derivative.sum(0)

    def _rest(self, weights: Tensor, *, joined: bool = False) -> Gradients:
        """Gradients of regularizers, unless `joined` already, and of the balancer's parameters."""
        pairs: Gradients = []
        if self._learned and self.values.requires_grad:
            learned = torch.autograd.grad(
                weights.to(self.values) @ self.values,
                self._learned,
                retain_graph=True,  # task-SAM combines the same objectives again
                allow_unused=True,
                materialize_grads=True,
            )
            pairs += self._scaled(learned)
        if self._extra:
            pairs += self._learned_in_extra()
        if self._extra and not joined:
            pairs += self._pass(None)
        return pairs

    @property
    def _joined(self) -> list[Tensor]:
        """Regularizers that share the pass from the representation to the shared parameters."""
        apart = self._level == "parameters" or self._step.sharded or self._given is not None
        return [] if apart else self._extra

    def _pass(self, weights: Tensor | None) -> Gradients:
        """One backward pass of losses and regularizers; of sharded parameters it fills `.grad`."""
        if self._step.sharded:
            self._step.backward(weights, self._extra)
            return []
        gradients = self._step.gradient(weights, self._extra)
        return _pairs(self._step.parameters, gradients)

    def _learned_in_extra(self) -> Gradients:
        """Gradients of parameters that regularizers learn."""
        if not self._extra or not self._learned:
            return []
        local = self._step.differentiate(None, self._learned, extra=self._extra, retain_graph=True)
        return _pairs(self._learned, all_reduce_list(local, self._learned))

    def _scaled(self, gradients: Sequence[Tensor]) -> Gradients:
        scaled = [g * self._step.scale for g in gradients]
        return list(zip(self._learned, scaled, strict=True))


def _pairs(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Gradients:
    return [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]


@torch.no_grad()
def accumulate(gradients: Gradients) -> None:
    """Adds gradients to `.grad`; a parameter may occur several times."""
    taken: set[int] = set()
    for parameter, gradient in gradients:
        if parameter.grad is not None:
            parameter.grad += gradient
        elif gradient.stride() == parameter.stride() and gradient.data_ptr() not in taken:
            parameter.grad = gradient
            taken.add(gradient.data_ptr())
        else:  # expanded, or the same memory as another parameter's (autograd shares both)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
