"""From a step to the gradient of every parameter: rows, their Gramian, and their combination.

Shapes: `a` present tasks, `k` objectives (losses after the transforms), `r` rows (backward
passes), `n` columns (shared parameters, or elements of the representation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtl.distributed import all_reduce, all_reduce_list, world_size
from mtl.errors import NonFiniteError, UnsupportedError
from mtl.linalg import gramian

if TYPE_CHECKING:
    from mtl.step import Level, Step
    from mtl.transforms import Transform

Gradients = list[tuple[Tensor, Tensor]]
"""Parameters with what is to be added to their `.grad`."""


class Rows:
    """Gradients of weighted sums of the losses, one backward pass each.

    Args:
        step: The losses and what they can be differentiated by.
        level: `parameters`: columns are the shared parameters; `representation`: the elements of
            the tensors at which the heads attach (one more pass takes their combination on to the
            parameters).
        basis: `[r, a]`, row j is the sum of losses that pass j differentiates. Default: each loss.
        whole: `False`: rows of linear layers may stay factors.
        retain_graph: Keep the graph behind the last pass.

    Attributes:
        jacobian: `[r, n]`, times the step's scale; at the parameter level that of the global
            batch, at the representation that of the local samples. Without what is in factors.

    Raises:
        UnsupportedError: The step has no representation, or parameters tied between heads bypass
            it.
    """

    def __init__(
        self,
        step: Step,
        level: Level,
        basis: Tensor | None = None,
        *,
        whole: bool = True,
        retain_graph: bool = False,
    ) -> None:
        self.step = step
        self.level = level
        self.heads: list[Gradients] = []
        tasks = range(len(step.present))
        members = [[i] for i in tasks] if basis is None else _nonzero(basis)
        self._factors = [] if whole or level != "parameters" else step.factors(len(members))
        inside = {id(p) for factor in self._factors for p in factor.parameters}
        self._columns = _columns(step, level, inside)
        keep = retain_graph or level == "representation"
        first = self._columns_of(0)
        dtype = torch.promote_types(first[0].dtype, torch.float32) if first else torch.float32
        width = sum(t.numel() for t in first)
        self.jacobian = step.values.new_empty(len(members), width, dtype=dtype)
        self._used = [False] * len(first)
        cotangents = step.cotangents()
        for j, among in enumerate(members):
            if basis is not None:
                cotangents = step.cotangents(basis[j])
            self._backward(j, cotangents, among, keep or j + 1 < len(members))
        if level == "parameters":
            all_reduce(self.jacobian)

    def _columns_of(self, position: int) -> list[Tensor]:
        return self._columns[position] if self._columns else []

    def _backward(self, j: int, cotangents: list[Tensor], among: list[int], retain: bool) -> None:
        """Fills row j, and takes the gradients of the heads involved in the same pass."""
        names = self.step.present
        columns = self._columns_of(among[0] if among else 0)
        own = [p for i in among for p in self.step.specific[names[i]]]
        outputs = [factor.output for factor in self._factors]
        gradients = self.step.differentiate(
            cotangents, [*columns, *outputs, *own], among=among, retain_graph=retain
        )
        row, gradients = gradients[: len(columns)], gradients[len(columns) :]
        for factor, gradient in zip(self._factors, gradients, strict=False):
            factor.record(j, gradient)
        flat = [
            c.new_zeros(c.numel()) if g is None else g.reshape(-1)
            for g, c in zip(row, columns, strict=True)
        ]
        target = self.jacobian[j]
        if flat and all(part.dtype == target.dtype for part in flat):
            torch.cat(flat, out=target)
        elif flat:
            target.copy_(torch.cat([part.to(target.dtype) for part in flat]))
        self._used = [u or g is not None for u, g in zip(self._used, row, strict=True)]
        heads = all_reduce_list(gradients[len(outputs) :], own)
        self.heads.append([(p, g) for p, g in zip(own, heads, strict=True) if g is not None])

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products of the rows of the global batch, without the scale, `[r, r]`, float64.

        Raises:
            NonFiniteError: A row is not finite.
        """
        result = gramian(self.jacobian)
        for factor in self._factors:
            result = result + factor.gramian()
        if self.level == "representation":
            result = all_reduce(result)
        result = result / self.step.scale**2
        bad = (~result.diagonal().isfinite()).tolist()
        if any(bad):
            names = self.step.present
            culprits = [n for n, b in zip(names, bad, strict=False) if b]
            raise NonFiniteError(*(culprits if len(bad) == len(names) else names))
        return result

    def weighted(self, weights: Tensor) -> Gradients:
        """Gradients of the shared parameters for `weights @ rows`.

        Args:
            weights: `[r]`.
        """
        pairs = self.along(weights.to(self.jacobian) @ self.jacobian, weights)
        for factor in self._factors:
            pairs += factor.combine(weights)
        return pairs

    def along(self, direction: Tensor, weights: Tensor | None = None) -> Gradients:
        """Gradients of the shared parameters for a direction in the columns of `jacobian`.

        Args:
            direction: `[n]`, times the scale.
            weights: `[r]`, the weights that made it; needed where tasks have their own
                representation.
        """
        if self.level == "parameters":
            columns = self._columns_of(0)
            parts = direction.split([c.numel() for c in columns])
            used = self._used if world_size() == 1 else [True] * len(columns)
            return [
                (c, part.view_as(c).to(c.dtype))
                for c, part, u in zip(columns, parts, used, strict=True)
                if u
            ]
        outputs, cotangents = self._at_representation(direction, weights)
        gradients = torch.autograd.grad(
            outputs, self.step.shared, cotangents, retain_graph=True, allow_unused=True
        )
        reduced = all_reduce_list(list(gradients), self.step.shared)
        return [(p, g) for p, g in zip(self.step.shared, reduced, strict=True) if g is not None]

    def _at_representation(
        self, direction: Tensor, weights: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Tensors of the representation and the gradient of the combination by each."""
        per_task = [self._columns_of(i) for i in range(len(self.step.present))]
        if len({tuple(map(id, columns)) for columns in per_task}) == 1:
            parts = direction.split([c.numel() for c in per_task[0]])
            return per_task[0], [
                part.view_as(c).to(c.dtype) for c, part in zip(per_task[0], parts, strict=True)
            ]
        if weights is None:
            raise UnsupportedError(
                "An aggregator of the Jacobian needs one representation for all tasks; here each "
                'task has its own. Use level="parameters".'
            )
        outputs, cotangents = [], []
        for columns, row, weight in zip(per_task, self.jacobian, weights.unbind(), strict=True):
            parts = (weight.to(row) * row).split([c.numel() for c in columns])
            outputs += columns
            cotangents += [p.view_as(c).to(c.dtype) for c, p in zip(columns, parts, strict=True)]
        return outputs, cotangents

    def specific(self, weights: Tensor | None) -> Gradients:
        """Gradients of the heads: `sum_j weights[j] * (gradient in pass j)`; `None`: ones."""
        if weights is None:
            return [pair for pairs in self.heads for pair in pairs]
        total: dict[Tensor, Tensor] = {}
        for pairs, weight in zip(self.heads, weights.unbind(), strict=True):
            for parameter, gradient in pairs:
                part = gradient * weight.to(gradient.dtype)
                total[parameter] = total[parameter] + part if parameter in total else part
        return list(total.items())


def _columns(step: Step, level: Level, inside: set[int]) -> list[list[Tensor]]:
    """For each present task the tensors that make its row, but for those inside factors."""
    if level == "parameters":
        columns = [p for p in step.shared if id(p) not in inside]
        return [columns for _ in step.present]
    if step.representation is None:
        raise UnsupportedError(
            'level="representation" needs a step with a representation. Use a MultiTaskModel, '
            'pass `representation` to Step, or use level="parameters".'
        )
    if step.tied:
        raise UnsupportedError(
            'level="representation" does not see parameters that heads share among themselves. '
            'Move them into the backbone, or use level="parameters".'
        )
    columns = [
        [t for t in step.representation.get(name, ()) if t.requires_grad] for name in step.present
    ]
    shapes = [[tuple(t.shape) for t in tensors] for tensors in columns]
    if any(shape != shapes[0] for shape in shapes) or not columns[0]:
        raise UnsupportedError(
            "Expected representations of one shape that depend on trainable parameters. Got "
            f"{dict(zip(step.present, shapes, strict=True))}. Give all tasks batches of equal "
            'size, or use level="parameters".'
        )
    return columns


def _nonzero(basis: Tensor) -> list[list[int]]:
    return [[i for i, c in enumerate(row) if c != 0] for row in basis.tolist()]


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
        extra: Regularizers, added after the combination with weight one.
        level: Where gradients are compared.
        head_grad: `own`: each head follows its own objective; `weighted`: with the weight that
            the objective has in the shared gradient.
        whole: Whether `jacobian` will be asked for; if not, rows of linear layers may stay
            factors.

    Attributes:
        values: The objectives, `[k]`, with a graph to the losses and to `learned`.

    Raises:
        NonFiniteError: A transform made an objective NaN or infinite.
    """

    def __init__(
        self,
        step: Step,
        transforms: Sequence[Transform] = (),
        *,
        learned: Sequence[Tensor] = (),
        extra: Sequence[Tensor] = (),
        level: Level = "parameters",
        head_grad: str = "own",
        whole: bool = True,
    ) -> None:
        self._step = step
        self._whole = whole
        self._level: Level = level
        self._transforms = list(transforms)
        self._learned = list(learned)
        self._extra = list(extra)
        self._head_grad = head_grad
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
            if all(transform.elementwise for transform in self._transforms):
                names = tuple(n for n, ok in zip(names, finite, strict=True) if not ok)
            raise NonFiniteError(*names)

    # ------------------------------------------------- the three ways to make gradients of them

    def minimize(self, scalar: Tensor) -> Combined:
        """Gradients of a scalar function of `values`, by one backward pass in all."""
        weights, *learned = torch.autograd.grad(
            scalar, [self._losses, *self._learned], allow_unused=True, materialize_grads=True
        )
        own = self._learned_in_extra() + self._scaled(learned)
        gradients = self._step.gradient(weights, self._extra)
        return Combined(_pairs(self._step.parameters, gradients) + own, weights=weights)

    def weigh(self, weights: Tensor) -> Combined:
        """Gradients of `weights @ values`, from the rows behind `gramian`."""
        weights = weights.detach().to(self._losses)
        on_losses = weights if self._derivative is None else weights @ self._derivative
        on_rows = weights if self._by_objective else on_losses
        rows = self._rows
        gradients = rows.weighted(on_rows) + rows.specific(self._head_factors(on_rows)) + self._rest(weights)
        return Combined(gradients, weights=on_losses, gramian=self.gramian)

    def follow(self, direction: Tensor) -> Combined:
        """Gradients with `direction`, `[n]`, in the columns of `jacobian`."""
        rows = self._rows
        shared = rows.along(direction.detach().to(rows.jacobian) * self._step.scale)
        ones = torch.ones_like(self.values).detach()
        heads = rows.specific(self._head_factors(None))
        return Combined(shared + heads + self._rest(ones), gramian=self.gramian)

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
        if self._level == "representation" and world_size() > 1:
            raise UnsupportedError(
                "An aggregator of the Jacobian at the representation does not run on several "
                'processes. Use level="parameters".'
            )
        rows = self._rows.jacobian / self._step.scale
        if self._derivative is None or self._by_objective:
            return rows
        return self._derivative.to(rows) @ rows

    @cached_property
    def _rows(self) -> Rows:
        retain, whole = bool(self._extra), self._whole
        if self._by_objective:
            basis = self._derivative
            return Rows(self._step, self._level, basis, whole=whole, retain_graph=retain)
        return self._step.rows(self._level, whole=whole, retain_graph=retain)

    @cached_property
    def _derivative(self) -> Tensor | None:
        """`d values / d losses`, `[k, a]`; `None` is the identity."""
        if not self._transforms:
            return None
        if all(transform.elementwise for transform in self._transforms):
            (slopes,) = torch.autograd.grad(self.values.sum(), self._losses, retain_graph=True)
            return slopes.diag()
        rows = [
            torch.autograd.grad(value, self._losses, retain_graph=True, materialize_grads=True)[0]
            for value in self.values
        ]
        return torch.stack(rows)

    @property
    def _by_objective(self) -> bool:
        """One pass an objective is cheaper than one a task when there are fewer objectives."""
        return self._level == "parameters" and len(self.values) < len(self._losses)

    def _head_factors(self, on_rows: Tensor | None) -> Tensor | None:
        if self._head_grad == "weighted" and on_rows is not None:
            return on_rows
        if self._derivative is None or self._by_objective:
            return None
        return self._derivative.sum(0)

    def _rest(self, weights: Tensor) -> Gradients:
        """Gradients of regularizers and of the balancer's own parameters."""
        pairs: Gradients = []
        if self._learned and self.values.requires_grad:
            learned = torch.autograd.grad(
                weights.to(self.values) @ self.values,
                self._learned,
                allow_unused=True,
                materialize_grads=True,
            )
            pairs += self._scaled(learned)
        if self._extra:
            pairs += self._learned_in_extra()
            pairs += _pairs(self._step.parameters, self._step.gradient(None, self._extra))
        return pairs

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
