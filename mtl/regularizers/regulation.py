"""Task-specific saliency regulation, the first of Rep-MTL's two terms.

References:
    Wang, Li, Xu. Rep-MTL: Unleashing the Power of Representation-level Task Saliency for
    Multi-Task Learning. ICCV 2025. https://arxiv.org/abs/2507.21049
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import Product, dense, nonzero
from mtl.regularizers.saliency import Saliency, SaliencyRegularizer, as_tasks, check_choice
from mtl.step import Step

ChannelMean = Literal["signed", "absolute"]

_INSIDE_LOG = 1e-12


def tsr(saliency: Saliency, *, channel_mean: ChannelMean = "signed", eps: float = 1e-6) -> Tensor:
    """How evenly the tasks share a position, as an entropy over tasks.

    At every position i of every sample, with `A_t[i] = |mean_c S_t[c, i]|` (Eq. 4),
    `P_t[i] = A_t[i] / sum_k A_k[i]` (Eq. 5) and `TSR = -mean_i sum_t P_t[i] ln P_t[i]` (Eq. 6):
    from 0 (each position belongs to one task) to ln m (to all alike).

    A factor common to all tasks changes nothing; a factor of one task does. Half precision is
    computed in float32.

    Args:
        saliency: `[m, B, C, N]`, or m tensors or products `[B, C, N]`.
        channel_mean: `signed`: absolute value of the mean, as printed; `absolute`: mean of absolute
            values.
        eps: Added to the sum over tasks, in units of the root mean square of A: a position without
            saliency has entropy 0. The paper names none.

    Returns:
        A scalar; 0 without graph where there is one task.
    """
    tasks = as_tasks(saliency)
    if len(tasks) < 2:
        return tasks[0].new_zeros(())
    if channel_mean == "absolute":
        tasks = [dense(s).abs() for s in tasks]
    size = torch.stack([s.sum(1) for s in tasks]).abs()  # the number of channels cancels
    size = size / nonzero(size.detach().amax())  # squares of small numbers vanish
    size = size / nonzero(size.detach().square().mean().sqrt())
    share = size / (size.sum(0) + eps)
    return -(share * (share + _INSIDE_LOG).log()).sum(0).mean()  # xlogy has slope -inf at 0


class TSR(SaliencyRegularizer):
    """Rep-MTL's first term as a regularizer: `strength * tsr(saliency)`.

    Args:
        strength: See `SaliencyRegularizer`, also for the options that are not listed here.
        channel_mean: See `tsr`.
        eps: See `tsr`.

    Raises:
        ConfigError: An option is out of range.
    """

    def __init__(
        self,
        *,
        strength: float = 0.9,
        channel_mean: ChannelMean = "signed",
        eps: float = 1e-6,
        log: bool = True,
        log_eps: float = 1e-8,
        channel_dim: int | None = None,
        detach: bool = False,
        warmup_epochs: int = 0,
        max_ratio: float | None = None,
    ) -> None:
        super().__init__(
            strength=strength,
            log=log,
            log_eps=log_eps,
            channel_dim=channel_dim,
            detach=detach,
            warmup_epochs=warmup_epochs,
            max_ratio=max_ratio,
        )
        check_choice("channel_mean", channel_mean, get_args(ChannelMean))
        if not eps > 0:
            raise ConfigError(f"`eps` should be positive. Got {eps}.")
        self.channel_mean: ChannelMean = channel_mean
        self.eps = eps

    def term(self, saliency: list[Tensor | Product], step: Step) -> Tensor:  # noqa: ARG002
        """The value of `tsr`."""
        return tsr(saliency, channel_mean=self.channel_mean, eps=self.eps)
