"""Rows of linear layers, kept as factors: below the cost of one full backward pass a task.

The gradient of task i by the weight of a linear layer is `D_i^T A`, with the layer's input A,
`[N, in]`, and the gradient D_i by its output, `[N, out]`. Inner products of such rows need the
factors alone, `<D_i^T A, D_j^T A> = <D_i, (A A^T) D_j>`, and so does a combination of them,
`(sum_i w_i D_i)^T A`. So the backward passes stop at the outputs of the layers, and no `T x P`
matrix is formed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl.linalg import finest, gramian, inner_products

_ACCESS = 64  # multiplications in the time that one number takes to be written and read twice
_LEAST = 2**15  # weights; of smaller layers the rows cost less than finding out


class LinearCall(NamedTuple):
    """One evaluation of a linear layer."""

    layer: nn.Linear
    input: Tensor
    output: Tensor


@contextmanager
def record_linear_calls(module: nn.Module, calls: list[LinearCall]) -> Iterator[None]:
    """Notes the evaluations of the linear layers of a module.

    Args:
        module: Its larger layers of the very type `nn.Linear` are noted; a subclass, or a layer
            with hooks, may do other things.
        calls: Where the evaluations are added.
    """

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        if output.requires_grad:
            calls.append(LinearCall(layer, inputs[0].detach(), output))

    layers = [m for m in module.modules() if type(m) is nn.Linear and _is_plain(m)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def separable_calls(
    calls: Sequence[LinearCall], losses: Iterable[Tensor], shared: Iterable[Tensor]
) -> list[LinearCall]:
    """The evaluations whose rows follow from input and output alone.

    A layer qualifies if it was evaluated once, and its parameters are shared ones that nothing
    else below the losses uses.

    Args:
        calls: Evaluations in this step.
        losses: The losses; the graph below them is searched for other uses.
        shared: The shared parameters.
    """
    trainable = {id(p) for p in shared}
    counts, _ = uses(losses)
    evaluations = Counter(id(call.layer) for call in calls)
    return [
        call
        for call in calls
        if evaluations[id(call.layer)] == 1
        and all(id(p) in trainable and counts[id(p)] == 1 for p in call.layer.parameters())
    ]


def pays(call: LinearCall, rows: int) -> bool:
    """Whether so many rows are cheaper as factors: by multiplications, and by what is kept."""
    samples = call.output.numel() // call.layer.out_features
    wide, tall = call.layer.in_features, call.layer.out_features
    formed = rows * samples * wide * tall + rows * (rows + 2) * wide * tall
    products = samples * samples * (wide + rows * tall) + rows * rows * samples * tall
    products += samples * wide * tall
    kept, kept_formed = 2 * rows * samples * tall, rows * wide * tall
    return products + _ACCESS * kept < formed + _ACCESS * kept_formed


def uses(tensors: Iterable[Tensor], until: object = None) -> tuple[Counter[int], set[str]]:
    """What lies below some tensors in the graph.

    Args:
        tensors: Where to begin.
        until: An operation at which to end.

    Returns:
        How many operations take each parameter (its `id`), and the names of the operations.
    """
    counts: Counter[int] = Counter()
    names: set[str] = set()
    stack = [tensor.grad_fn for tensor in tensors]
    seen = {None, until, *stack}
    while stack:
        node = stack.pop()
        if node is None or node is until:
            continue
        names.add(node.name())
        for child, _ in node.next_functions:
            variable = getattr(child, "variable", None)
            if variable is not None:
                counts[id(variable)] += 1
            elif child not in seen:
                seen.add(child)
                stack.append(child)
    return counts, names


def _is_plain(layer: nn.Linear) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return layer.weight.numel() >= _LEAST and not hooked


class LayerRows(ABC):
    """Rows of one linear layer, from its input and the gradients at its output.

    Args:
        call: The evaluation.
        rows: Number of rows.
    """

    def __init__(self, call: LinearCall, rows: int) -> None:
        self.output = call.output
        self.parameters = list(call.layer.parameters())
        self._layer = call.layer
        self._input = call.input.reshape(-1, call.layer.in_features)
        self._shape = (rows, len(self._input), call.layer.out_features)

    @abstractmethod
    def record_all(self, gradients: Tensor | None) -> None:
        """Takes the gradients by the output, `[r, *output.shape]`; `None`: zeros."""

    @abstractmethod
    def gramian(self, *, precise: bool = False) -> Tensor:
        """Inner products of the rows, `[r, r]`, float64.

        Args:
            precise: Take all products in float64; see `mtl.linalg.inner_products`.
        """

    @abstractmethod
    def combine(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Gradients of weight and bias for `weights @ rows`."""

    def _flat(self, gradients: Tensor | None) -> Tensor:
        if gradients is None:
            return self.output.new_zeros(self._shape)
        return gradients.reshape(self._shape)

    def _pairs(self, weight: Tensor, bias: Callable[[], Tensor]) -> list[tuple[Tensor, Tensor]]:
        layer = self._layer
        pairs = [(layer.weight, weight.to(layer.weight.dtype))]
        if layer.bias is not None:
            pairs.append((layer.bias, bias().to(layer.bias.dtype)))
        return pairs


class Factor(LayerRows):
    """Rows that are kept as factors."""

    def __init__(self, call: LinearCall, rows: int) -> None:
        super().__init__(call, rows)
        self._gradients = call.output.new_empty(0)

    def record(self, row: int, gradient: Tensor | None) -> None:
        """Keeps the gradient by the output, for one row."""
        if not len(self._gradients):
            self._gradients = self.output.new_empty(self._shape)
        if gradient is None:
            self._gradients[row].zero_()
        else:
            self._gradients[row] = gradient.reshape(self._shape[1:])

    def record_all(self, gradients: Tensor | None) -> None:
        """Keeps them."""
        self._gradients = self._flat(gradients)

    def gramian(self, *, precise: bool = False) -> Tensor:
        """See `LayerRows.gramian`."""
        inputs, gradients = self._in_one_dtype()
        if precise:
            inputs, gradients = (t.to(finest(t)) for t in (inputs, gradients))
        kernel = inputs @ inputs.T
        if self._layer.bias is not None:
            kernel = kernel + 1
        products = torch.matmul(kernel, gradients)
        result = inner_products(gradients.flatten(1), products.flatten(1))
        return (result + result.T) / 2

    def combine(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `LayerRows.combine`."""
        inputs, gradients = self._in_one_dtype()
        mixed = torch.tensordot(weights.to(gradients), gradients, 1)
        return self._pairs(mixed.T @ inputs, lambda: mixed.sum(0))

    def _in_one_dtype(self) -> tuple[Tensor, Tensor]:
        least = torch.promote_types(self._gradients.dtype, torch.float32)
        return self._input.to(least), self._gradients.to(least)


class Formed(LayerRows):
    """Rows that are formed, for layers of which factors are dearer."""

    def record_all(self, gradients: Tensor | None) -> None:
        """Forms the rows."""
        flat = self._flat(gradients)
        least = torch.promote_types(flat.dtype, torch.float32)
        flat = flat.to(least)
        self._weight = flat.mT @ self._input.to(least)  # [r, out, in]
        self._bias = flat.sum(1) if self._layer.bias is not None else flat.new_empty(len(flat), 0)

    def gramian(self, *, precise: bool = False) -> Tensor:
        """See `LayerRows.gramian`."""
        parts = (self._weight.flatten(1), self._bias)
        return torch.stack([gramian(part, precise=precise) for part in parts]).sum(0)

    def combine(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `LayerRows.combine`."""
        on_rows = weights.to(self._weight)
        return self._pairs(torch.tensordot(on_rows, self._weight, 1), lambda: on_rows @ self._bias)
