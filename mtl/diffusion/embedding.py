"""What a denoiser is told beside the picture: the timestep and the class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Condition(nn.Module):
    """Embeds timestep and class, `[B], [B] -> [B, width]`.

    Sines and cosines of t at `frequencies` rates from 1 to 1/10000, and a two-layer network.

    Args:
        width: Size of the embedding.
        num_classes: Number of classes; 0: none. One more index stands for "no class", which
            classifier-free guidance needs.
        frequencies: Number of rates.
    """

    rates: Tensor

    def __init__(self, width: int, num_classes: int = 0, frequencies: int = 32) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10000) * torch.arange(frequencies) / frequencies)
        self.register_buffer("rates", rates, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, t: Tensor, label: Tensor) -> Tensor:
        """The embedding."""
        angles = t[:, None].to(self.rates.dtype) * self.rates
        embedding = self.time(torch.cat([angles.cos(), angles.sin()], 1))
        return embedding if self.label is None else embedding + self.label(label)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x (1 + scale) + shift`."""
    return torch.addcmul(x + shift, x, scale)
