"""Learned scales of the losses: impartial multi-task learning, the loss part."""

import torch
from torch import Tensor, nn

from mtl.parts import Transform


class IMTLScale(Transform):
    """`exp(s_i) L_i - s_i` with learned `s_i` (IMTL-L), for any combiner.

    At its optimum `exp(s_i) = 1 / L_i`, so that all scaled losses become one. With `IMTLGWeighting`
    it is the whole of IMTL (the preset `imtl`), with equal weighting `mtl.scalarization.IMTLLoss`.

    Each scale descends on its own objective: the gradient of `s_i` is `exp(s_i) L_i - 1`, whatever
    weight the combiner gives to the task, like that of a head that follows its own objective. A
    weight of IMTL-G may be negative, and a scale that followed it would run away. LibMTL's `IMTL`
    does the same.

    Args:
        num_tasks: Number of tasks.
        initial: Start of every `s_i`; 0 leaves the losses as they are, as in the paper.

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang. Towards Impartial Multi-task Learning.
        ICLR 2021. https://openreview.net/forum?id=IMPnRXEWpvr
    """

    elementwise = True

    def __init__(self, num_tasks: int, *, initial: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((num_tasks,), float(initial)))

    def forward(self, losses: Tensor) -> Tensor:
        """Scaled losses, `[a] -> [a]`."""
        log_scale = self.log_scale[self.present]
        own = (log_scale.detach().exp() * losses.detach() - 1).to(log_scale)
        if log_scale.requires_grad:
            log_scale.register_hook(lambda _: own)
        return log_scale.exp() * losses - log_scale
