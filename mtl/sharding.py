"""Parameters that are sharded over processes by `torch.distributed.fsdp.fully_shard` (FSDP2).

Each process holds its part of every parameter, of its gradient and of the optimizer's state; a
module's whole parameters exist while it runs. Gradients then come out of an ordinary backward
pass only, in which the hooks of the sharding sum them over the processes (`Step.backward`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mtl.errors import UnsupportedError
from mtl.parts import Needs

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from mtl.balancer import Balancer

_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether any of the parameters is held in parts by several processes."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in parameters)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shards a model once: each of its parts (backbone, every head) is gathered while it runs.

    To gather a large backbone block by block, apply `fully_shard` to its blocks before.

    Args:
        model: A `MultiTaskModel`, or another model whose children run by being called.
        mesh: The processes.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(model, FSDPModule):
        return
    for child in model.children():
        listed = isinstance(child, nn.ModuleList | nn.ModuleDict)
        for unit in child.children() if listed else [child]:
            fully_shard(unit, mesh=mesh)
        if not listed:
            child.register_forward_hook(_separate)
    fully_shard(model, mesh=mesh)


def _separate(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
    """Gives copies of what a backbone returns.

    Its hooks stay with the original, so that a pass which ends at the copy, as one for a row does
    at the representation, does not gather the backbone's parameters.
    """
    return tree_map_only(Tensor, lambda t: t.clone() if t.requires_grad else t, output)


def check_sharded(balancer: Balancer, model: nn.Module, num_tasks: int) -> None:
    """Checks that a balancer works with the sharded parameters of a model.

    Raises:
        UnsupportedError: It needs gradients of single tasks by the parameters, or part of the
            model is not sharded.
    """
    remedy = "Use trainer=ddp"
    if not all(is_sharded([p]) for p in model.parameters() if p.requires_grad):
        raise UnsupportedError(
            "Expected all trainable parameters of the model to be sharded, or none. Got some of "
            "both: gradients of the others would differ between processes. Apply `fully_shard` to "
            "the whole model as well."
        )
    if balancer.sharpness is not None:
        raise UnsupportedError(
            f"{type(balancer.sharpness).__name__} moves the parameters along a gradient, which "
            f"does not run where they are sharded. {remedy}, or leave `sharpness` out."
        )
    if any(p.requires_grad for part in balancer.regularizers.values() for p in part.parameters()):
        raise UnsupportedError(
            f"A regularizer with parameters of its own does not run where the model is sharded. "
            f"{remedy}."
        )
    if Needs.SALIENCY in balancer.needs:
        raise UnsupportedError(
            "Task saliency takes second derivatives through the heads, which does not run where "
            f"their parameters are sharded. {remedy}, or leave these regularizers out."
        )
    needs = balancer.needs if num_tasks > 1 else Needs.LOSSES
    method = type(balancer.combine).__name__
    if needs & (Needs.GRAMIAN | Needs.JACOBIAN) and balancer.level == "parameters":
        raise UnsupportedError(
            f'{method} should compare gradients at level="representation" where parameters are '
            f'sharded. Got level="parameters": gradients of single tasks by sharded parameters '
            f"cannot be taken. Use balancer.level=representation, a loss weighting, or trainer=ddp."
        )


def clip(parameters: Sequence[Tensor], limit: float, *, by_norm: bool) -> None:
    """Clips the gradients of sharded and whole parameters together, by their norm or by value.

    Torch's own functions take one kind or the other; the balancer's parameters are whole.
    """
    with_grad = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in with_grad if is_sharded([p]) == kind] for kind in (True, False)]
    kinds = [kind for kind in kinds if kind]
    if not by_norm:
        for kind in kinds:
            nn.utils.clip_grad_value_(kind, limit)
        return
    gradients = [[p.grad for p in kind if p.grad is not None] for kind in kinds]
    norms = [_whole(nn.utils.get_total_norm(kind)) for kind in gradients]
    if norms:
        factor = (limit / (torch.stack(norms).norm() + _EPS)).clamp_max(1.0)
        for gradient in [g for kind in gradients for g in kind]:
            gradient.mul_(factor.to(gradient.dtype))


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if is_sharded([tensor]) else tensor


def place(value: Any, like: Any) -> Any:
    """Shards a tensor as another of its shape; gives everything else back as it is."""
    if not isinstance(like, Tensor) or not is_sharded([like]) or not isinstance(value, Tensor):
        return value
    if value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def gather(model: nn.Module) -> None:
    """Keeps whole parameters in every process, so that each may run by itself until `scatter`."""
    for module in _units(model):
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)


def scatter(model: nn.Module) -> None:
    """Undoes `gather`."""
    for module in _units(model):
        module.set_reshard_after_forward(True, recurse=False)
        module.reshard()


def _units(model: nn.Module) -> list[Any]:
    if not dist.is_available() or not dist.is_initialized():
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
