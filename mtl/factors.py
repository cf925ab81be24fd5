"""Rows of linear layers, kept as factors: below the cost of one full backward pass a task.

The gradient of task i by the weight of a linear layer is `D_i^T A`, with the layer's input A,
`[N, in]`, and the gradient D_i by its output, `[N, out]`. Inner products of such rows need the
factors alone, `<D_i^T A, D_j^T A> = <D_i, (A A^T) D_j>`, and so does a combination of them,
`(sum_i w_i D_i)^T A`. So the backward passes stop at the outputs of the layers, and no `T x P`
matrix is formed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl.linalg import finest, inner_products

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


def worthwhile(
    calls: Sequence[LinearCall],
    losses: Iterable[Tensor],
    shared: Iterable[Tensor],
    rows: int,
    *,
    always: bool = False,
) -> list[LinearCall]:
    """The evaluations whose rows can be factors, and are cheaper so.

    A layer qualifies if it was evaluated once, its parameters are shared ones that nothing else
    below the losses uses, and the products of factors take fewer multiplications than the rows.

    Args:
        calls: Evaluations in this step.
        losses: The losses; the graph below them is searched for other uses.
        shared: The shared parameters.
        rows: Number of rows.
        always: Whatever they cost.
    """
    trainable = {id(p) for p in shared}
    uses = _uses(losses)
    evaluations = Counter(id(call.layer) for call in calls)
    return [
        call
        for call in calls
        if evaluations[id(call.layer)] == 1
        and all(id(p) in trainable and uses[id(p)] == 1 for p in call.layer.parameters())
        and (always or _pays(call, rows))
    ]


def _pays(call: LinearCall, rows: int) -> bool:
    samples = call.output.numel() // call.layer.out_features
    wide, tall = call.layer.in_features, call.layer.out_features
    as_rows = rows * samples * wide * tall + rows * (rows + 2) * wide * tall
    products = samples * samples * (wide + rows * tall) + rows * rows * samples * tall
    return products + samples * wide * tall < as_rows


def _uses(losses: Iterable[Tensor]) -> Counter[int]:
    """How many operations below the losses take each parameter."""
    uses: Counter[int] = Counter()
    stack = [loss.grad_fn for loss in losses]
    seen = set(stack)
    while stack:
        node = stack.pop()
        for child, _ in () if node is None else node.next_functions:
            variable = getattr(child, "variable", None)
            if variable is not None:
                uses[id(variable)] += 1
            elif child not in seen:
                seen.add(child)
                stack.append(child)
    return uses


def _is_plain(layer: nn.Linear) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return layer.weight.numel() >= _LEAST and not hooked


class Factor:
    """Rows of one linear layer as factors.

    Args:
        call: The evaluation.
        rows: Number of rows.
    """

    def __init__(self, call: LinearCall, rows: int) -> None:
        self.output = call.output
        self.parameters = list(call.layer.parameters())
        self._layer = call.layer
        self._input = call.input.reshape(-1, call.layer.in_features)
        samples = len(self._input)
        shape = (rows, samples, call.layer.out_features)
        self._gradients = call.output.new_empty(shape)

    def record(self, row: int, gradient: Tensor | None) -> None:
        """Keeps the gradient by the output, for one row."""
        if gradient is None:
            self._gradients[row].zero_()
        else:
            self._gradients[row] = gradient.reshape(self._gradients.shape[1:])

    def gramian(self, *, precise: bool = False) -> Tensor:
        """Inner products of the rows, `[r, r]`, float64.

        Args:
            precise: Take all products in float64; see `mtl.linalg.inner_products`.
        """
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
        """Gradients of weight and bias for `weights @ rows`."""
        inputs, gradients = self._in_one_dtype()
        mixed = torch.tensordot(weights.to(gradients), gradients, 1)
        pairs = [(self._layer.weight, (mixed.T @ inputs).to(self._layer.weight.dtype))]
        if self._layer.bias is not None:
            pairs.append((self._layer.bias, mixed.sum(0).to(self._layer.bias.dtype)))
        return pairs

    def _in_one_dtype(self) -> tuple[Tensor, Tensor]:
        least = torch.promote_types(self._gradients.dtype, torch.float32)
        return self._input.to(least), self._gradients.to(least)
