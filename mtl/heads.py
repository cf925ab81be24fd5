"""Heads of one linear layer: the gradients of the tasks at the representation as factors.

The gradient of task i at the representation is `E_i W_i`, with the gradient E_i by the head's
output, `[n, K_i]`, and the head's weight W_i, `[K_i, C]`. With all tasks side by side, E `[n, K]`
and W `[K, C]`, the inner products of such rows are sums over the blocks of `(E^T E) * (W W^T)`,
and their combination is one product of the weighted E and W: no row is formed, and all E come
from one backward pass that ends at the predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtl.distributed import all_reduce, all_reduce_list
from mtl.linalg import finest, inner_products
from mtl.rows import Gradients, Products, from_representation, weigh_heads

if TYPE_CHECKING:
    from mtl.step import Step

_BLOCK = 2048  # columns
_CASTS = ("TBackward0", "ToCopyBackward0")  # a transposed weight, and one under autocast


def head_weight(prediction: Tensor, inputs: Tensor) -> Tensor | None:
    """The weight of a head that is one linear layer on its input, else `None`.

    It is read off the graph, so that it does not matter how the head is written.

    Args:
        prediction: Output of the head: `[n, K]`, or `[B, K, ...]` of a 1x1 convolution.
        inputs: What the head took: `[n, C]`, or `[B, C, ...]`.

    Returns:
        `[K, C]`, where `prediction = inputs @ weight^T + bias` at every position, and weight and
        bias depend on nothing else.
    """
    node = prediction.grad_fn
    if node is None or inputs.grad_fn is None:
        return None
    find = _MATRIX.get(node.name())
    if find is None:
        return None
    position, weight = find(node)
    edges = list(node.next_functions)
    if weight is None or edges.pop(position) != (inputs.grad_fn, inputs.output_nr):
        return None
    return weight.detach() if all(_is_leaf(edge) for edge, _ in edges) else None


def _of_addmm(node: Any) -> tuple[int, Tensor | None]:
    plain = node._saved_alpha == 1 and node._saved_beta == 1
    return 1, node._saved_mat2.T if plain else None


def _of_mm(node: Any) -> tuple[int, Tensor | None]:
    return 0, node._saved_mat2.T


def _of_convolution(node: Any) -> tuple[int, Tensor | None]:
    weight = node._saved_weight
    ordinary = not node._saved_transposed and node._saved_groups == 1
    ones = all(size == 1 for size in (*weight.shape[2:], *node._saved_stride))
    if not ordinary or not ones or any(node._saved_padding):
        return 0, None
    return 0, weight.flatten(1)


_MATRIX = {
    "AddmmBackward0": _of_addmm,
    "MmBackward0": _of_mm,
    "ConvolutionBackward0": _of_convolution,
}


def _is_leaf(node: Any) -> bool:
    """Whether a tensor that enters an operation is a parameter or a constant."""
    while node is not None and node.name() in _CASTS:
        node = node.next_functions[0][0]
    return node is None or node.name() == "torch::autograd::AccumulateGrad"


class LinearHeadRows(Products):
    """What `mtl.rows.Rows` at the representation gives to a weighting, without rows.

    Args:
        step: The losses and their predictions.
        weights: For each present task the weight of its head, `[K_i, C]`.
        retain_graph: Keep the graph behind the passes.
    """

    def __init__(self, step: Step, weights: Sequence[Tensor], *, retain_graph: bool) -> None:
        super().__init__(step)
        self._retain_graph = retain_graph
        names = step.present
        self._representation = (step.representation or {})[names[0]][0]
        predictions = [step.predictions[name] for name in names]
        own = [step.specific[name] for name in names]
        there = [p for parameters in own for p in parameters]
        gradients = step.differentiate(
            step.cotangents(), [*predictions, *there], retain_graph=retain_graph
        )
        heads = iter(all_reduce_list(gradients[len(names) :], there))
        found = [[(p, next(heads)) for p in parameters] for parameters in own]
        self.heads = [[(p, g) for p, g in pairs if g is not None] for pairs in found]
        # Float32 at least, as the rows would be.
        dtype = torch.promote_types(self._representation.dtype, torch.float32)
        self._errors = torch.cat(
            [
                p.new_zeros(p.shape, dtype=dtype) if g is None else g.to(dtype)
                for p, g in zip(predictions, gradients, strict=False)
            ],
            dim=1,
        )
        self._weight = torch.cat([weight.to(dtype) for weight in weights])
        self._sizes = [len(weight) for weight in weights]
        # [a, K], which outputs are whose
        self._members = torch.block_diag(*[w.new_ones(1, len(w), dtype=dtype) for w in weights])

    def _products(self, precise: bool) -> Tensor:
        errors = self._errors.transpose(0, 1).flatten(1)
        members = self._members.to(finest(self._members))
        products = _inner(errors, precise).to(members) * _inner(self._weight, precise).to(members)
        result = members @ products @ members.T
        return all_reduce((result + result.T) / 2)

    def by_sample(self) -> Tensor:
        """The rows, formed, in the shape of the representation, `[a, *shape]`, times the scale."""
        parts = self._errors.split(self._sizes, 1), self._weight.split(self._sizes)
        pairs = zip(*parts, strict=True)
        return torch.stack([_times(errors, weight) for errors, weight in pairs])

    def combine(
        self, weights: Tensor, heads: Tensor | None, extra: Sequence[Tensor] = ()
    ) -> Gradients:
        """See `Products.combine`."""
        factors = weights.to(self._members) @ self._members
        mixed = self._errors * factors.view(-1, *[1] * (self._errors.dim() - 2))
        there, direction = self._representation, _times(mixed, self._weight)
        pairs = from_representation(
            self.step, [there], [direction.to(there)], extra, retain_graph=self._retain_graph
        )
        return pairs + weigh_heads(self.heads, heads)


def _times(errors: Tensor, weight: Tensor) -> Tensor:
    """Gradients at the input, `[n, C]` or `[B, C, ...]`, from those at the output."""
    if errors.dim() == 2:
        return errors @ weight
    return torch.einsum("kc,bk...->bc...", weight, errors)


def _inner(rows: Tensor, precise: bool) -> Tensor:
    """Inner products of rows; of short ones in one block, as precise as those of long ones."""
    if rows.shape[1] > _BLOCK or precise:
        return inner_products(rows, rows, precise=precise)
    return rows @ rows.T


def factors_pay(weights: Sequence[Tensor]) -> bool:
    """Whether products of factors take fewer multiplications than rows, in batches of any size.

    Args:
        weights: For each task the weight of its head, `[K_i, C]`.
    """
    tasks, outputs = len(weights), sum(len(weight) for weight in weights)
    return 2 * outputs**2 <= (tasks**2 + outputs) * weights[0].shape[1]
