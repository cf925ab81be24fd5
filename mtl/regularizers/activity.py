"""Penalty on the size of the representation."""

from typing import ClassVar

import torch
from torch import Tensor

from mtl.errors import ConfigError, UnsupportedError
from mtl.parts import Needs, Regularizer
from mtl.step import Step


class Activity(Regularizer):
    """`strength * mean(z^2)` over the elements of the representation z.

    Several tensors (or one a task) are averaged with equal weight.

    Args:
        strength: Factor, 0 or more.
    """

    needs: ClassVar[Needs] = Needs.REPRESENTATION

    def __init__(self, *, strength: float = 1e-3) -> None:
        super().__init__()
        if strength < 0:
            raise ConfigError(f"`strength` should be 0 or more. Got {strength}.")
        self.strength = strength

    def forward(self, step: Step) -> Tensor:
        """The penalty, a scalar with graph."""
        if step.representation is None:
            raise UnsupportedError(
                "Activity needs a step with a representation. Use a MultiTaskModel, or pass "
                "`representation` to Step."
            )
        tensors = {id(t): t for ts in step.representation.values() for t in ts}.values()
        squares = [t.to(torch.promote_types(t.dtype, torch.float32)).square() for t in tensors]
        return self.strength * torch.stack([s.mean() for s in squares]).mean()
