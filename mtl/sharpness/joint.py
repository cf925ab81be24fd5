"""One perturbation for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mtl.engine import Combined
from mtl.errors import ConfigError
from mtl.parts import Sharpness
from mtl.step import Step

_LEAST = torch.float32


class JointSAM(Sharpness):
    """Sharpness-aware minimization: the balancer's gradients at `p + rho g / |g|`.

    `g` is the gradient of the sum of the losses by all parameters. The parameters are put back from
    a copy, to the bit. Cost: one forward and one backward pass more than the balancer alone. With
    several processes `g` is that of the global batch.

    Args:
        rho: Radius of the perturbation, > 0.

    References:
        Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for Efficiently Improving
        Generalization. ICLR 2021. https://arxiv.org/abs/2010.01412
    """

    def __init__(self, *, rho: float = 0.05) -> None:
        super().__init__()
        if rho <= 0:
            raise ConfigError(f"`rho` should be positive. Got {rho}.")
        self.rho = rho

    def forward(self, step: Step, gradients: Callable[[Step], Combined]) -> Combined:
        """The balancer's gradients at the perturbed point."""
        ascent = step.gradient(torch.ones_like(step.values))
        pairs = [(p, g) for p, g in zip(step.parameters, ascent, strict=True) if g is not None]
        norms = torch.stack([g.norm(dtype=torch.promote_types(g.dtype, _LEAST)) for _, g in pairs])
        norm = norms.norm()
        factor = self.rho / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        with perturbed([(p, g * factor) for p, g in pairs]):
            again = step.recompute()
            again.check_finite()
            combined = gradients(again)
        combined.scalars["sharpness/rise"] = (again.values - step.values).sum()
        return combined


@contextmanager
def perturbed(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Adds to parameters, and puts the old values back by copy, also after an error."""
    parameters = [p for p, _ in pairs]
    with torch.no_grad():
        saved = [p.clone() for p in parameters]
        try:
            torch._foreach_add_(parameters, [g.to(p.dtype) for p, g in pairs])
            with torch.enable_grad():
                yield
        finally:
            torch._foreach_copy_(parameters, saved)
