"""Gradients of the losses one by one: the rows that combiners weigh.

Shapes: `a` present tasks, `r` rows (backward passes), `n` columns (shared parameters, or elements
of the representation).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtl.distributed import Held, HeldEvenly, HeldSamples, all_reduce, all_reduce_list
from mtl.errors import NonFiniteError, UnsupportedError
from mtl.linalg import gramian

if TYPE_CHECKING:
    from mtl.factors import Factor
    from mtl.step import Level, Step

Gradients = list[tuple[Tensor, Tensor]]
"""Parameters with what is to be added to their `.grad`."""

_LEAST = 1e-28  # squared norm of float32 rows; of shorter ones some squares underflow


class Products(ABC):
    """What a weighting needs of the gradients of weighted sums of the losses, r of them.

    Args:
        step: The losses and what they can be differentiated by.

    Attributes:
        heads: For each sum, the gradients of the heads involved.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.heads: list[Gradients] = []

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products over the global batch, without the scale, `[r, r]`, float64.

        Raises:
            NonFiniteError: A gradient is not finite.
        """
        products = finite_products(self._products, self.step.present)
        return products / self.step.scale**2

    @abstractmethod
    def combine(
        self, weights: Tensor, heads: Tensor | None, extra: Sequence[Tensor] = ()
    ) -> Gradients:
        """Gradients of all parameters; of sharded ones they go to `.grad` at once.

        Args:
            weights: `[r]`, on the gradients of the shared parameters.
            heads: `[r]`, on those of the heads; `None`: ones.
            extra: At the representation: scalars whose gradient, by all parameters, comes with the
                pass from there.
        """

    @abstractmethod
    def _products(self, precise: bool) -> Tensor:
        """Inner products times the scale squared; `precise`: in float64 throughout."""


class Rows(Products):
    """Gradients of weighted sums of the losses, one backward pass each.

    Args:
        step: The losses and what they can be differentiated by.
        level: `parameters`: columns are the shared parameters; `representation`: the elements of
            the tensors at which the heads attach (one more pass takes their combination on to the
            parameters).
        basis: `[r, a]`, row j is the sum of losses that pass j differentiates. Default: each loss.
        factors: Linear layers whose rows are kept as factors, not in `jacobian`.
        retain_graph: Keep the graph behind the last pass.

    Attributes:
        jacobian: `[r, n]`, times the step's scale; at the parameter level that of the global
            batch, at the representation that of the local samples. Without what is in factors.
            Its columns are those that are `held`.
        share: Which columns these are at the parameter level; `None`: all.

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
        factors: Sequence[Factor] = (),
        retain_graph: bool = False,
    ) -> None:
        super().__init__(step)
        self.level = level
        self._retain_graph = retain_graph
        tasks = range(len(step.present))
        members = [[i] for i in tasks] if basis is None else _nonzero(basis)
        self._factors = factors
        inside = {id(p) for factor in self._factors for p in factor.parameters}
        self._columns = _columns(step, level, inside)
        keep = retain_graph or level == "representation"
        first = self._columns_of(0)
        dtype = torch.promote_types(first[0].dtype, torch.float32) if first else torch.float32
        width = sum(t.numel() for t in first)
        self.share = HeldEvenly.here(width) if level == "parameters" else None
        width = width if self.share is None else self.share.width
        self.jacobian = step.values.new_empty(len(members), width, dtype=dtype)
        self._used = [False] * len(first)
        self._inside: Tensor | float | None = None  # what `unscaled` has multiplied the rows by
        cotangents = step.cotangents()
        for j, among in enumerate(members):
            if basis is not None:
                cotangents = step.cotangents(basis[j])
            self._backward(j, cotangents, among, keep or j + 1 < len(members))

    def _columns_of(self, position: int) -> list[Tensor]:
        return self._columns[position] if self._columns else []

    def _backward(self, j: int, cotangents: list[Tensor], among: list[int], retain: bool) -> None:
        """Fills row j, and takes the gradients of the heads involved in the same pass."""
        names = self.step.present
        columns = self._columns_of(among[0] if among else 0)
        own = [p for i in among for p in self.step.specific[names[i]]]
        if self.step.sharded:
            own = []  # theirs come with the pass that `combine` ends in
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
        if flat and self.share is not None:
            joined = torch.cat([part.to(target.dtype) for part in flat])
            target.copy_(self.share.reduce_scatter(joined))
        elif flat and all(part.dtype == target.dtype for part in flat):
            torch.cat(flat, out=target)
        elif flat:
            target.copy_(torch.cat([part.to(target.dtype) for part in flat]))
        self._used = [u or g is not None for u, g in zip(self._used, row, strict=True)]
        heads = all_reduce_list(gradients[len(outputs) :], own)
        self.heads.append([(p, g) for p, g in zip(own, heads, strict=True) if g is not None])

    def _products(self, precise: bool) -> Tensor:
        result = gramian(self.jacobian, precise=precise)
        for factor in self._factors:
            result = result + factor.gramian(precise=precise)
        if self.level == "representation" or self.share is not None:
            result = all_reduce(result)
        return result

    @cached_property
    def held(self) -> Held | None:
        """The columns that this process holds; `None`: all.

        With several processes those are a part of the parameters, or its samples' elements of the
        representation.
        """
        return (
            HeldSamples.here(self._columns_of(0)) if self.level == "representation" else self.share
        )

    def unscaled(self, factors: Tensor | None = None) -> Tensor:
        """`jacobian` without the scale, in the same memory, once; `combine` makes up for it.

        Args:
            factors: `[r]`, on the rows. Default: ones.
        """
        assert self._inside is None
        self.gramian  # noqa: B018 - it is had while the scale is there
        if factors is None:
            self._inside = 1 / self.step.scale
            return self.jacobian.div_(self.step.scale)
        self._inside = (factors / self.step.scale).to(self.jacobian)
        return self.jacobian.mul_(self._inside[:, None])

    def _still(self, weights: Tensor) -> Tensor:
        """Weights for `jacobian` as it is now; a row that was multiplied by zero has none."""
        if self._inside is None:
            return weights
        return (weights / self._inside).where(weights != 0, 0.0)

    def by_sample(self) -> Tensor:
        """The rows in the shape of the representation, `[r, *shape]`, times the scale."""
        (tensor,) = self._columns_of(0)
        return self.jacobian.view(-1, *tensor.shape)

    def combine(
        self, weights: Tensor, heads: Tensor | None, extra: Sequence[Tensor] = ()
    ) -> Gradients:
        """See `Products.combine`."""
        rest = self._still(weights)
        direction = self._complete(rest.to(self.jacobian) @ self.jacobian)
        pairs = self._along(direction, heads, extra, rest)
        return pairs + [pair for factor in self._factors for pair in factor.combine(weights)]

    def follow(
        self,
        direction: Tensor,
        heads: Tensor | None,
        extra: Sequence[Tensor] = (),
        *,
        held: bool = False,
    ) -> Gradients:
        """Gradients of all parameters; of sharded ones they go to `.grad` at once.

        Args:
            direction: In the place of a combination of rows, `[n]`, times the scale.
            heads: See `Products.combine`.
            extra: See `Products.combine`.
            held: The direction has the held columns only.

        Raises:
            UnsupportedError: Tasks have their own representation.
        """
        if held:
            direction = self._complete(direction)
        elif self.level == "representation" and self.held is not None:
            direction = self.held.of(direction)
        return self._along(direction, heads, extra)

    def _complete(self, direction: Tensor) -> Tensor:
        """What `_along` takes, from the held columns."""
        return direction if self.share is None else self.share.all_gather(direction)

    def _along(
        self,
        direction: Tensor,
        heads: Tensor | None,
        extra: Sequence[Tensor],
        weights: Tensor | None = None,
    ) -> Gradients:
        """Gradients for a direction: by all parameters, or at the samples of this process.

        Args:
            direction: Times the scale.
            heads: See `Products.combine`.
            extra: See `Products.combine`.
            weights: `[r]`, those that made it; needed where tasks have their own representation.
        """
        if self.level == "parameters":
            columns = self._columns_of(0)
            parts = direction.split([c.numel() for c in columns])
            used = self._used if self.share is None else [True] * len(columns)
            shared = [
                (c, part.view_as(c).to(c.dtype))
                for c, part, u in zip(columns, parts, used, strict=True)
                if u
            ]
            return shared + weigh_heads(self.heads, heads)
        outputs, cotangents = self._at_representation(direction, weights)
        if self.step.sharded:
            heads = torch.ones_like(self.step.values) if heads is None else heads
            replaced = list(zip(outputs, cotangents, strict=True))
            self.step.backward(heads, replaced=replaced, retain_graph=True)
            return []
        shared = from_representation(
            self.step, outputs, cotangents, extra, retain_graph=self._retain_graph
        )
        return shared + weigh_heads(self.heads, heads)

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


def weigh_heads(heads: Sequence[Gradients], weights: Tensor | None) -> Gradients:
    """Gradients of the heads, `sum_j weights[j] * heads[j]`; `None`: ones."""
    if weights is None:
        return [pair for pairs in heads for pair in pairs]
    total: dict[Tensor, Tensor] = {}
    for pairs, weight in zip(heads, weights.unbind(), strict=True):
        for parameter, gradient in pairs:
            part = gradient * weight.to(gradient.dtype)
            total[parameter] = total[parameter] + part if parameter in total else part
    return list(total.items())


def from_representation(
    step: Step,
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    extra: Sequence[Tensor],
    *,
    retain_graph: bool,
) -> Gradients:
    """Gradients of the shared parameters from those at the representation, by one backward pass.

    Args:
        step: Whose parameters.
        outputs: Tensors of the representation.
        cotangents: The gradient by each, times the scale.
        extra: Scalars whose gradient, by all parameters, comes with the pass.
        retain_graph: Keep the graph for another pass.
    """
    scalars, ones = step.with_gradient(extra)
    inputs = step.parameters if extra else step.shared
    gradients = torch.autograd.grad(
        [*outputs, *scalars],
        inputs,
        [*cotangents, *ones],
        retain_graph=retain_graph,
        allow_unused=True,
    )
    reduced = all_reduce_list(list(gradients), inputs)
    return [(p, g) for p, g in zip(inputs, reduced, strict=True) if g is not None]


def finite_products(products: Callable[[bool], Tensor], names: Sequence[str]) -> Tensor:
    """The Gramian of rows, again in float64 where float32 cannot hold their squares.

    Args:
        products: Whether to take products in float64 -> Gramian.
        names: Tasks; those at fault are named if each has a row.

    Raises:
        NonFiniteError: A row is not finite.
    """
    result = products(False)
    if all(_LEAST <= square < math.inf for square in result.diagonal().tolist()):
        return result
    result = products(True)
    bad = (~result.diagonal().isfinite()).tolist()
    if any(bad):
        culprits = [name for name, b in zip(names, bad, strict=False) if b]
        raise NonFiniteError(*(culprits if len(bad) == len(names) else names))
    return result


def _columns(step: Step, level: Level, inside: set[int]) -> list[list[Tensor]]:
    """For each present task the tensors that make its row, but for those inside factors."""
    if level == "parameters":
        if step.sharded:
            raise UnsupportedError(
                "Gradients of single tasks by sharded parameters cannot be taken. Use "
                'level="representation", a loss weighting, or strategy=ddp.'
            )
        outside = [p for p in step.shared if id(p) not in inside]
        return [outside for _ in step.present]
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
