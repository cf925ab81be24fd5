"""Impartial multi-task learning, loss balance."""

import torch
from torch import Tensor, nn

from mtl.parts import Scalarizer


class IMTLLoss(Scalarizer):
    """Scales learned so that all scaled losses become one, `sum_i (exp(s_i) L_i - s_i)` (IMTL-L).

    `s_i` is a parameter; the optimizer learns it in its own group. At its optimum
    `exp(s_i) = 1 / L_i`. It is the paper's loss balance with base e, and twice uncertainty
    weighting with the sign of `s` turned.

    Args:
        num_tasks: Number of tasks.
        initial: Start of every `s_i`; 0 gives weights of one, as in the paper, LibMTL and
            TorchJD.

    LibMTL has it only together with the gradient balance, IMTL-G, and gives the scaled losses to
    that: the preset `imtl`, with the transform `mtl.transforms.IMTLScale`. Here it stands alone, as
    in TorchJD.

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang. Towards Impartial Multi-task Learning.
        ICLR 2021. https://openreview.net/forum?id=IMPnRXEWpvr
    """

    def __init__(self, num_tasks: int, *, initial: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((num_tasks,), float(initial)))

    def forward(self, losses: Tensor) -> Tensor:
        """Scales the losses, `[k]`, by the learned factors."""
        log_scale = self.log_scale[self.present]
        return (torch.exp(log_scale) * losses - log_scale).sum()
