"""The cheapest exact way to the Gramian of the tasks' gradients and to their combination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mtl.factored import FactoredRows, passes_at_once
from mtl.factors import Factor, Formed, pays
from mtl.heads import LinearHeadRows, factors_pay, head_weight
from mtl.rows import Rows

if TYPE_CHECKING:
    from mtl.step import Engine, Step


def at_parameters(step: Step, engine: Engine, *, retain_graph: bool) -> Rows | FactoredRows:
    """Gradients by the shared parameters; see `Step.products`."""
    count, layers = len(step.present), step.separable_layers
    source = passes_at_once(step, layers) if layers and not _needs_rows(step) else None
    if source is None:
        factors = step.factors(count, engine)
        return Rows(step, "parameters", factors=factors, retain_graph=retain_graph)
    rows = [
        Factor(call, count) if engine == "gramian" or pays(call, count) else Formed(call, count)
        for call in layers
    ]
    there = at_representation(step, "gramian", retain_graph=retain_graph)
    return FactoredRows(step, rows, source, there, retain_graph=retain_graph)


def at_representation(step: Step, engine: Engine, *, retain_graph: bool) -> Rows | LinearHeadRows:
    """Gradients at the representation; see `Step.products`."""
    weights = _head_weights(step, engine)
    if weights is None:
        return Rows(step, "representation", retain_graph=retain_graph)
    return LinearHeadRows(step, weights, retain_graph=retain_graph)


def _needs_rows(step: Step) -> bool:
    """Whether only `Rows` will do: parameters are sharded, or tied between heads."""
    return step.sharded or bool(step.tied)


def _head_weights(step: Step, engine: Engine) -> list[Tensor] | None:
    """The weights of the present tasks' heads, if each is one linear layer on one tensor."""
    inputs = step.common_representation()
    if inputs is None or _needs_rows(step):
        return None
    weights = []
    for name in step.present:
        prediction = step.predictions.get(name)
        weight = None if prediction is None else head_weight(prediction, inputs)
        if weight is None:
            return None
        weights.append(weight)
    return weights if engine == "gramian" or factors_pay(weights) else None
