"""Heads: from the representation to the prediction of one task."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class DenseHead(nn.Module):
    """A 1x1 convolution, `[B, C, H, W] -> [B, out_channels, H, W]`.

    Args:
        in_channels: Channels of the representation.
        out_channels: Channels of the prediction.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Prediction at every position."""
        return self.convolution(features)


class MLPHead(nn.Module):
    """A linear layer, or two with a ReLU between, `[B, C] -> [B, out_features]`.

    Args:
        in_features: Size of the representation.
        out_features: Size of the prediction.
        hidden: Width of the layer between; `None`: a single linear layer.
    """

    def __init__(self, in_features: int, out_features: int, *, hidden: int | None = None) -> None:
        super().__init__()
        widths = [in_features, *([] if hidden is None else [hidden])]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out_features))

    def forward(self, features: Tensor) -> Tensor:
        """Prediction of every sample."""
        return self.layers(features)
