"""Moving average of the weights."""

import torch
from torch import Tensor, nn

from mtl.aggregation.torchjd import adapt
from mtl.errors import ConfigError
from mtl.parts import Weighting


class EMA(Weighting):
    """Smooths the weights of any weighting, `v(t) = decay v(t-1) + (1 - decay) w(t)` (CR-MOGM).

    The weights of one batch are biased where they depend on the batch's gradients; averaged over
    steps they are not, as far as the step size is small against `1 - decay`.

    Args:
        weighting: Gives `w`; a TorchJD one is adapted.
        num_tasks: Number of tasks (of objectives, where a transform changes it).
        decay: Share that stays, in [0, 1); 0 changes nothing.

    In YAML::

        combine:
          _target_: mtl.aggregation.EMA
          num_tasks: ${num_tasks}
          decay: 0.9
          weighting: {_target_: mtl.aggregation.MGDAWeighting}

    or `balancer/combine=cr_mogm balancer/combine@balancer.combine.weighting=mgda`.

    The first weights are taken as they are, as in TorchJD, for each task when it first has labels;
    absent tasks keep theirs, so that after an absence weights on a simplex need not sum to one.
    The paper lowers `1 - decay` with the learning rate; here it is constant.

    References:
        Zhou, Zhang, Jiang, Zhong, Gu, Zhu. On the Convergence of Stochastic Multi-Objective
        Gradient Manipulation and Beyond. NeurIPS 2022.
        https://proceedings.neurips.cc/paper_files/paper/2022/hash/f91bd64a3620aad8e70a27ad9cb3ca57-Abstract-Conference.html
    """

    average: Tensor
    known: Tensor

    def __init__(
        self, weighting: Weighting | nn.Module, num_tasks: int, *, decay: float = 0.9
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ConfigError(f"`decay` should be in [0, 1). Got {decay}.")
        self.weighting = check_weighting(weighting)
        self.decay = decay
        self.head_grad = self.weighting.head_grad  # type: ignore[misc]
        self.register_buffer("average", torch.zeros(num_tasks))
        self.register_buffer("known", torch.zeros(num_tasks, dtype=torch.bool))

    def forward(self, gramian: Tensor) -> Tensor:
        """Averaged weights `[m]` from the Gramian `[m, m]`."""
        weights = self.weighting(gramian)
        average = self.average[self.present].to(weights)
        smoothed = self.decay * average + (1 - self.decay) * weights
        smoothed = torch.where(self.known[self.present], smoothed, weights)
        self.average[self.present] = smoothed.to(self.average)
        self.known[self.present] = True
        return smoothed


def check_weighting(part: nn.Module) -> Weighting:
    """A weighting, adapted where it is TorchJD's.

    Raises:
        ConfigError: It is something else.
    """
    adapted = adapt(part)
    if not isinstance(adapted, Weighting):
        raise ConfigError(
            f"`weighting` should be a Weighting (a function of the Gramian). Got {part!r}."
        )
    return adapted
