"""What a balancer will cost, said before it does."""

from __future__ import annotations

from mtl import streaming
from mtl.aggregation.memory import GradientMemory
from mtl.balancer import Balancer
from mtl.model import MultiTaskModel
from mtl.parts import Aggregator, Needs

_MIB = 2**20


def describe_cost(balancer: Balancer, model: MultiTaskModel, num_tasks: int) -> str:
    """Backward passes, memory and exchange between processes of a training step, in words.

    Passes are those of a step that computes all there is to compute: methods that reuse weights, or
    have fewer objectives than tasks, take fewer.

    Args:
        balancer: What turns losses into gradients.
        model: Its shared parameters are what gradients are compared at.
        num_tasks: Number of tasks.
    """
    needs = balancer.needs
    shared = model.parameter_groups().shared
    rows = bool(needs & (Needs.GRAMIAN | Needs.JACOBIAN)) and num_tasks > 1
    products = f"{num_tasks}x{num_tasks} products"
    if not rows:
        passes, memory = "1 backward pass", "no rows of gradients kept"
        exchanged = "the losses and one gradient are summed over them"
    elif balancer.level == "representation":
        passes = f"{num_tasks} backward passes through the heads, 1 through the backbone"
        memory = f"{num_tasks} gradients of the representation kept"
        exchanged = f"the losses, {products} and one gradient are summed over them"
        if _takes_whole_rows(balancer):
            exchanged += f", and {num_tasks} gradients of the representation are gathered"
    else:
        limit = num_tasks if balancer.max_rows is None else balancer.max_rows
        count = streaming.passes(num_tasks, limit) + bool(balancer.regularizers)
        passes = f"{count} backward passes"
        kept = num_tasks if num_tasks <= limit else limit + 1
        mebibytes = kept * sum(p.numel() * p.element_size() for p in shared) / _MIB
        most = "at most " if Needs.JACOBIAN not in needs else ""
        memory = f"{most}{mebibytes:.1f} MiB of rows"
        differentiated = streaming.passes(num_tasks, limit) - (num_tasks > limit)
        exchanged = (
            f"the losses and {products} are summed over them, {differentiated} rows are summed and "
            f"scattered, and {_last(balancer, num_tasks, limit)}"
        )
    if Needs.SALIENCY in needs:
        memory += ", second derivatives through the heads"
    if rows and any(isinstance(module, GradientMemory) for module in balancer.modules()):
        memory += ", as much again kept from step to step and in checkpoints"
    count = sum(p.numel() for p in shared)
    again = _again(balancer, num_tasks)
    return (
        f"A step takes {passes}, {memory}{again}. Shared parameters: {count:,}. With several "
        f"processes, {exchanged}."
    )


def _last(balancer: Balancer, num_tasks: int, limit: int) -> str:
    """What ends the exchange of gradients by the shared parameters."""
    if num_tasks > limit:  # rows are not kept: the combination is a pass of its own
        return "one gradient is summed"
    whole = _takes_whole_rows(balancer)
    return f"{num_tasks} rows are gathered" if whole else "one vector is gathered"


def _takes_whole_rows(balancer: Balancer) -> bool:
    return isinstance(balancer.combine, Aggregator) and not balancer.combine.columnwise


def _again(balancer: Balancer, num_tasks: int) -> str:
    """What is evaluated beyond the one point."""
    again = ""
    if balancer.sharpness is not None:
        again += f", and {balancer.sharpness.describe(num_tasks)}"
    if Needs.AFTER_STEP in balancer.needs:
        again += ", and one forward pass after the optimizer's step"
    return again
