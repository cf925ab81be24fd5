"""Trunks of linear layers: the backward passes of all tasks at once, and no row at all.

Where every shared parameter is a linear layer's (see `mtl.factors`), what a task's backward pass
has to give are the gradients at the outputs of the layers. From the representation on, the passes
of all tasks differ in numbers only, and run as one with larger matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtl.factors import LayerRows, LinearCall, uses
from mtl.heads import LinearHeadRows
from mtl.rows import Gradients, Products, Rows, weigh_heads

if TYPE_CHECKING:
    from mtl.step import Step

# Operations whose backward pass takes many gradients at once, and draws nothing when a checkpoint
# evaluates it again.
_BATCHED = frozenset(
    f"{name}Backward0"
    for name in (
        *("Addmm", "Mm", "T", "Add", "View", "UnsafeView", "ToCopy"),
        *("Relu", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish", "Hardswish", "Softplus"),
        *("Tanh", "Sigmoid"),
    )
) | {"torch::autograd::AccumulateGrad"}


def passes_at_once(step: Step, calls: Sequence[LinearCall]) -> Tensor | None:
    """The tensor from which the passes of all tasks can run as one, if there is such a tensor.

    It is the representation, if all paths from the losses to the shared parameters lead through it
    and each of these parameters is that of a linear layer.

    Args:
        step: The losses.
        calls: The linear layers whose rows follow from input and output.
    """
    inside = {id(p) for call in calls for p in call.layer.parameters()}
    tensor = step.common_representation()
    if tensor is None or any(id(p) not in inside for p in step.shared):
        return None
    losses = [loss for loss in step.losses.values() if loss is not None]
    beside, _ = uses(losses, until=tensor.grad_fn)
    _, operations = uses([tensor])
    return tensor if not inside & set(beside) and operations <= _BATCHED else None


class FactoredRows(Products):
    """What `mtl.rows.Rows` gives to a weighting, for a trunk of linear layers.

    Args:
        step: The losses.
        layers: The linear layers, which have all shared parameters.
        source: What `passes_at_once` gave.
        there: The gradients of the losses at the source, and those of the heads.
        retain_graph: Keep the graph behind the pass.
    """

    def __init__(
        self,
        step: Step,
        layers: Sequence[LayerRows],
        source: Tensor,
        there: Rows | LinearHeadRows,
        *,
        retain_graph: bool,
    ) -> None:
        super().__init__(step)
        self.heads = there.heads
        self._layers = layers
        gradients = torch.autograd.grad(
            [source],
            [layer.output for layer in layers],
            [there.by_sample().to(source.dtype)],
            retain_graph=retain_graph,
            allow_unused=True,
            is_grads_batched=True,
        )
        for layer, gradient in zip(layers, gradients, strict=True):
            layer.record_all(gradient)

    def _products(self, precise: bool) -> Tensor:
        return torch.stack([rows.gramian(precise=precise) for rows in self._layers]).sum(0)

    def combine(
        self, weights: Tensor, heads: Tensor | None, extra: Sequence[Tensor] = ()
    ) -> Gradients:
        """See `Products.combine`."""
        assert not extra  # they share a pass at the representation only
        pairs = [pair for rows in self._layers for pair in rows.combine(weights)]
        return pairs + weigh_heads(self.heads, heads)
