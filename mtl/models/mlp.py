"""Multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU on flattened inputs, `[B, ...] -> [B, out_channels]`.

    Args:
        in_features: Number of elements of a flattened sample.
        hidden: Widths of the layers.
        bottleneck: Width of a last layer without ReLU. Default: none; the last of `hidden` is the
            representation.
    """

    def __init__(
        self, in_features: int, hidden: Sequence[int] = (128, 64), *, bottleneck: int | None = None
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        if bottleneck is not None:
            widths.append(bottleneck)
            layers.append(nn.Linear(widths[-2], bottleneck))
        self.layers = nn.Sequential(*layers)
        self.out_channels = widths[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Representation of every sample."""
        return self.layers(inputs)
