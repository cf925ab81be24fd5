"""Multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU on flattened inputs, `[B, ...] -> [B, hidden[-1]]`.

    Args:
        in_features: Number of elements of a flattened sample.
        hidden: Widths of the layers; the last one is that of the representation.
    """

    def __init__(self, in_features: int, hidden: Sequence[int] = (128, 64)) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.out_channels = widths[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Representation of every sample."""
        return self.layers(inputs)
