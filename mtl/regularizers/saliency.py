"""Terms on the tasks' saliency at the shared representation: what TSR and CSA have in common.

The saliency of task t is the gradient of its loss by the representation, `S_t = dL_t / dZ` (Eq. 3),
signed, as m tensors `[B, C, N]`: B samples, C channels, N positions.

References:
    Wang, Li, Xu. Rep-MTL: Unleashing the Power of Representation-level Task Saliency for
    Multi-Task Learning. ICCV 2025. https://arxiv.org/abs/2507.21049
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtl.distributed import world_size
from mtl.errors import ConfigError, UnsupportedError
from mtl.linalg import Product, dense
from mtl.parts import Needs, Regularizer
from mtl.step import Step

Saliency = Tensor | Sequence[Tensor | Product]
"""`[m, B, C, N]`, or m tensors or products `[B, C, N]`."""


class SaliencyRegularizer(Regularizer):
    """`strength * term(saliency)`.

    The term depends on the parameters through the gradients of the losses: second derivatives are
    taken, through the heads alone. Heads must be twice differentiable in PyTorch's sense; with ReLU
    the result is the derivative at fixed activation masks.

    In steps that are logged, the norms of the gradients at the representation are compared, as
    `<name>/gradient_norm` (this term, times its strength) and `tasks/gradient_norm` (the sum of the
    losses whose saliency is taken); this costs one more pass through the heads.

    Samples that tasks do not share (multi-input data) are paired by their position in the batch;
    the paper does not say how, this is our choice.
    With several processes saliency and negatives are those of each process's own samples, and the
    term is the mean over processes.

    Args:
        strength: The paper's lambda, 0 or more; it finds 0.7 to 1.5 alike and does not say which
            table has which, so that the default is our choice. With 0 nothing is computed.
        log: Saliency of `log(L_t + log_eps)` rather than of `L_t`. The paper trains on log losses;
            that their saliency is meant is our reading.
        log_eps: 1e-8 as in DB-MTL.
        channel_dim: Dimension of the representation that holds the channels; the others, but for
            the first, are positions. Default: the last of three (tokens), otherwise 1.
        detach: Saliencies are constants: the term is logged and trains nothing. A control.
        warmup_epochs: The strength grows linearly over so many epochs. Not in the paper.
        max_ratio: Most that the norm of the term's gradient at the representation may be, relative
            to that of the tasks' (the norms that are compared, on each process's own samples): a
            longer gradient is scaled down to it by a factor without gradient, the value stays.
            `None`: no limit, as in the paper. Costs one more pass through the heads in every step.

    Raises:
        ConfigError: An option is out of range.
    """

    needs: ClassVar[Needs] = Needs.REPRESENTATION | Needs.SALIENCY
    local: ClassVar[bool] = True

    def __init__(
        self,
        *,
        strength: float = 0.9,
        log: bool = True,
        log_eps: float = 1e-8,
        channel_dim: int | None = None,
        detach: bool = False,
        warmup_epochs: int = 0,
        max_ratio: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("strength", strength),
            ("log_eps", log_eps),
            ("warmup_epochs", warmup_epochs),
        ):
            if not 0 <= value < math.inf:
                raise ConfigError(f"`{name}` should be 0 or more. Got {value}.")
        if max_ratio is not None and not 0 < max_ratio < math.inf:
            raise ConfigError(f"`max_ratio` should be positive, or null. Got {max_ratio}.")
        if channel_dim == 0:
            raise ConfigError("`channel_dim` should not be 0, the dimension of the samples. Got 0.")
        self.strength = strength
        self.log_eps = log_eps if log else None
        self.channel_dim = channel_dim
        self.detach = detach
        self.warmup_epochs = warmup_epochs
        self.max_ratio = max_ratio
        self._epoch = 0
        if strength == 0:
            self.needs = Needs.LOSSES  # type: ignore[misc]

    def on_epoch_start(self, epoch: int) -> None:
        """Notes the epoch, for the warm-up."""
        self._epoch = epoch

    def forward(self, step: Step) -> Tensor:
        """The term times the strength of this epoch, a scalar with graph.

        Raises:
            UnsupportedError: The step has no representation with one shape for all tasks.
        """
        warm = self._epoch / self.warmup_epochs if self._epoch < self.warmup_epochs else 1.0
        if self.strength * warm == 0:
            return step.values.new_zeros(())
        saliency = self._saliency(step)
        if not saliency:  # all labels lie in other processes
            return step.values.new_zeros(())
        if self.detach:
            saliency = [s.detach() for s in saliency]
        value = self.strength * warm * self.term(saliency, step)
        if not value.requires_grad or (self.max_ratio is None and not step.observed):
            return value
        return self._compared(value, step)

    def _saliency(self, step: Step) -> list[Tensor | Product]:
        """One set of tensors for all terms: their gradients are then added in place."""
        key = ("saliency by position", self.log_eps, self.channel_dim)
        if key not in step.memo:
            step.memo[key] = as_tasks(positions_last(self._gradients(step), self.channel_dim))
        return step.memo[key]

    def _gradients(self, step: Step) -> dict[str, tuple[Tensor | Product, ...]]:
        return step.saliencies(self.log_eps, factored=self.channel_dim in (None, 1))

    def _compared(self, value: Tensor, step: Step) -> Tensor:
        """The term with its gradient capped; logs norms at the representation."""
        assert step.representation is not None
        sums: dict[Tensor, Tensor] = {}
        for name, gradients in self._gradients(step).items():
            for tensor, gradient in zip(step.representation[name], gradients, strict=True):
                part = dense(gradient.detach()) / world_size()
                sums[tensor] = sums[tensor] + part if tensor in sums else part
        tasks = _norm(sums.values())
        found = step.differentiate(None, list(sums), extra=[value], retain_graph=True)
        own = _norm(g for g in found if g is not None)
        if self.max_ratio is not None:
            largest = self.max_ratio * tasks
            factor = torch.where(own > largest, largest / own, 1.0).to(value)
            own = torch.minimum(own, largest)
            value = value.detach() + factor * (value - value.detach())  # the value is not capped
        name = type(self).__name__.lower()
        step.scalars[f"{name}/gradient_norm"] = own / step.scale
        step.scalars["tasks/gradient_norm"] = tasks / step.scale
        return value

    @abstractmethod
    def term(self, saliency: list[Tensor | Product], step: Step) -> Tensor:
        """The term, a scalar.

        Args:
            saliency: m tensors or products `[B, C, N]`, at least float32.
            step: For scalars to log.
        """


def as_tasks(saliency: Saliency) -> list[Tensor | Product]:
    """M tensors or products `[B, C, N]`, at least float32."""
    tasks = saliency.unbind() if isinstance(saliency, Tensor) else saliency
    return [s.to(torch.promote_types(s.dtype, torch.float32)) for s in tasks]


def positions_last(
    gradients: dict[str, tuple[Tensor | Product, ...]], channel_dim: int | None
) -> list[Tensor | Product]:
    """Gradients at the representation as `[B, C, N]`, one a task, without copies.

    Raises:
        UnsupportedError: A task has several tensors, shapes differ, or there are no channels.
    """
    if not gradients:
        return []
    for name, own in gradients.items():
        if len(own) != 1:
            raise UnsupportedError(
                "Task saliency needs one tensor [B, C, ...] a task as representation. Got "
                f"{len(own)} tensors for task {name!r}. Join them, or choose a model whose heads "
                "attach to one."
            )
    shapes = {name: tuple(own[0].shape) for name, own in gradients.items()}
    first = next(iter(shapes.values()))
    if any(own != first for own in shapes.values()) or len(first) < 2:
        raise UnsupportedError(
            "Task saliency needs one tensor [B, C, ...] a task as representation, of one shape "
            f"for all. Got {shapes}. Where tasks have batches of their own, make them of equal "
            "size (drop_last=True)."
        )
    dims = len(first)
    channels = channel_dim if channel_dim is not None else (-1 if dims == 3 else 1)
    if not -dims < channels < dims:
        raise ConfigError(
            f"`channel_dim` should be a dimension of the representation {first}, not the first. "
            f"Got {channels}."
        )
    return [_positions_last(own[0], channels) for own in gradients.values()]


def _positions_last(gradient: Tensor | Product, channels: int) -> Tensor | Product:
    if isinstance(gradient, Product):
        return gradient.flatten(2)
    moved = gradient.movedim(channels, 1)
    return moved.flatten(2) if moved.dim() > 2 else moved.unsqueeze(2)


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises `ConfigError` unless the value is one of the choices."""
    if value not in choices:
        raise ConfigError(f"`{name}` should be one of {choices}. Got {value!r}.")


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    norms = [t.norm(dtype=torch.promote_types(t.dtype, torch.float32)) for t in tensors]
    return torch.stack(norms).norm()
