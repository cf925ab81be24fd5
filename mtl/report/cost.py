"""What a balancer will cost, said before it does."""

from __future__ import annotations

from mtl.balancer import Balancer
from mtl.model import MultiTaskModel
from mtl.parts import Needs

_MIB = 2**20
_AGAIN = Needs.RECOMPUTE | Needs.AFTER_STEP


def describe_cost(balancer: Balancer, model: MultiTaskModel, num_tasks: int) -> str:
    """Backward passes, memory and exchange between processes of a training step, in one sentence.

    Args:
        balancer: What turns losses into gradients.
        model: Its shared parameters are what gradients are compared at.
        num_tasks: Number of tasks.
    """
    needs = balancer.needs
    shared = sum(p.numel() for p in model.parameter_groups().shared)
    rows = needs & (Needs.GRAMIAN | Needs.JACOBIAN) and num_tasks > 1
    if not rows:
        passes, memory = "1 backward pass", ""
        exchanged = "the losses and one gradient"
    elif balancer.level == "representation":
        passes = f"{num_tasks} backward passes through the heads, 1 through the backbone"
        memory = f", {num_tasks} gradients of the representation kept"
        exchanged = f"the losses, {num_tasks}x{num_tasks} products and one gradient"
    else:
        passes = f"{num_tasks} backward passes"
        mebibytes = 4 * num_tasks * shared / _MIB
        most = "at most " if Needs.JACOBIAN not in needs else ""
        memory = f", {most}{mebibytes:.1f} MiB of rows"
        exchanged = f"the losses and {num_tasks} gradients"
    if Needs.SALIENCY in needs:
        memory += ", second derivatives through the heads"
    again = ", and the batch is evaluated again" if needs & _AGAIN else ""
    return (
        f"A step takes {passes}{memory}{again}. Shared parameters: {shared:,}. With several "
        f"processes, {exchanged} are summed over them."
    )
