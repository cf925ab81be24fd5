"""How the tasks share the backbone: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class HardSharing:
    """One backbone for all tasks and a head each; base of the other ways."""

    def backbone(self, make: Callable[[], nn.Module]) -> nn.Module:
        """What all tasks share, with `out_channels`.

        Args:
            make: Makes a backbone, with new initial weights.
        """
        return make()

    def head(self, head: nn.Module) -> nn.Module:
        """What a task has for itself.

        Args:
            head: From the features of a backbone to the prediction.
        """
        return head


class SeparateNetworks(HardSharing):
    """A backbone of its own for every task, inside its head: the single-task baseline, in one run.

    Nothing is shared, so that every balancer with equal weights trains each task as if alone, on
    the same batches. (Clipping by the global norm sees all of them together.)
    """

    def backbone(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Passes the inputs on; the backbones are made with the heads."""
        self._make = make
        self._next: nn.Module | None = make()
        return _Inputs(self._next.out_channels)

    def head(self, head: nn.Module) -> nn.Module:
        """The head behind a backbone of its own."""
        own, self._next = self._next, None
        return nn.Sequential(self._make() if own is None else own, head)


class _Inputs(nn.Identity):
    def __init__(self, out_channels: Any) -> None:
        super().__init__()
        self.out_channels = out_channels
