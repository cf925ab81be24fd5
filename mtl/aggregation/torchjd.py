"""TorchJD's aggregators and weightings as parts of a balancer.

Nothing here imports TorchJD: an object of its classes exists only where it was imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, get_args

import torch
from torch import Tensor, nn

from mtl.parts import Aggregator, Stochastic, Weighting


def adapt(part: Any) -> Any:
    """Wraps a TorchJD aggregator or weighting; gives everything else back as it is.

    `Balancer` and the modifiers call it, so that these work as they are::

        balancer.combine._target_=torchjd.aggregation.MGDA
        Balancer(torchjd.aggregation.UPGrad())

    Weightings of the Gramian (`Weighting[PSDMatrix]`), and aggregators that consist of one, see the
    Gramian: they run at both levels and under the modifiers. Everything else sees the Jacobian.
    `MoDoWeighting` and `SDMGradWeighting` take products of gradients of two batches, `J_1 J_2^T`:
    there is one batch here, so that theirs is the Gramian as well, and biased by its noise.

    Random draws of TorchJD come from a generator of our own: the same in all processes and after a
    resume, and the global state is left alone. Its stateful methods keep the state that TorchJD
    saves, in buffers; what it does not save starts anew after a resume (see each class there), and
    most of them want the same number of tasks in all steps.
    """
    library: Any = sys.modules.get("torchjd.aggregation")
    if library is None:
        return part
    if isinstance(part, library.GramianWeightedAggregator):
        return TorchJDWeighting(part.gramian_weighting)
    if isinstance(part, library.Weighting):
        if _of_products(part, library):
            return TorchJDWeighting(part)
        return TorchJDAggregator(library.WeightedAggregator(part))
    if isinstance(part, library.Aggregator):
        return TorchJDAggregator(part)
    return part


def _of_products(weighting: Any, library: Any) -> bool:
    """Whether a weighting takes inner products, `[m, m]`, and not the Jacobian, `[m, n]`."""
    while isinstance(weighting, library.CRMOGMWeighting):  # it takes what the one inside takes
        weighting = weighting.weighting
    if isinstance(weighting, library.MoDoWeighting | library.SDMGradWeighting):
        return True
    gramian = sys.modules["torchjd.linalg"].PSDMatrix
    kinds = type(weighting).__mro__
    declared = chain.from_iterable(vars(kind).get("__orig_bases__", ()) for kind in kinds)
    return any(get_args(base) == (gramian,) for base in declared)


class _Foreign(Stochastic):
    """Holds the object, draws for it, and loads its state."""

    def __init__(self, part: nn.Module, *, seed: int | None) -> None:
        super().__init__(seed)
        self.part = part

    @contextmanager
    def draws_of_its_own(self, like: Tensor) -> Iterator[None]:
        """Puts the global generators into a state of our own, and back."""
        seed = self.generator(torch.device("cpu")).initial_seed()
        devices = [like.device] if like.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Makes room for buffers that are `None` until the first call."""
        for name, module in self.part.named_modules():
            path = f"{prefix}part.{name}." if name else f"{prefix}part."
            for key, buffer in module._buffers.items():
                if buffer is None and path + key in state_dict:
                    module._buffers[key] = torch.empty_like(state_dict[path + key])
        super()._load_from_state_dict(state_dict, prefix, *args)


class TorchJDWeighting(Weighting, _Foreign):
    """A TorchJD weighting of the Gramian, or that of a `GramianWeightedAggregator`.

    Args:
        part: The weighting.
        seed: See `Stochastic`.
    """

    def __init__(self, part: Any, *, seed: int | None = None) -> None:
        super().__init__(part, seed=seed)

    def forward(self, gramian: Tensor) -> Tensor:
        """Weights `[m]` from the Gramian `[m, m]`."""
        with torch.no_grad(), self.draws_of_its_own(gramian):
            return self.part(gramian)


class TorchJDAggregator(Aggregator, _Foreign):
    """A TorchJD aggregator that sees the Jacobian.

    Args:
        part: The aggregator.
        seed: See `Stochastic`.
    """

    def __init__(self, part: Any, *, seed: int | None = None) -> None:
        super().__init__(part, seed=seed)

    def forward(self, jacobian: Tensor) -> Tensor:
        """Direction `[n]` from the Jacobian `[m, n]`."""
        with torch.no_grad(), self.draws_of_its_own(jacobian):
            return self.part(jacobian)
