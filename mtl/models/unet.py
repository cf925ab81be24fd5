"""Small U-Net for dense prediction."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Three downsampling stages and back with skips, `[B, C, H, W] -> [B, width, H, W]`.

    Args:
        in_channels: Channels of the input.
        width: Channels at full resolution, doubled at each stage: 16 gives 0.3 M parameters.

    Heights and widths are multiples of 8. Weights and features are stored channels last, which
    halves the time of a step on CPUs and suits tensor cores.
    """

    def __init__(self, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.stem = _block(in_channels, width)
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _block(before, after))
            for before, after in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            _block(before + after, after)
            for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.enlarge = nn.Upsample(scale_factor=2)
        self.out_channels = width
        self.to(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> Tensor:
        """Representation at full resolution."""
        features = self.stem(pictures.contiguous(memory_format=torch.channels_last))
        skips = [features]
        for stage in self.down:
            features = stage(features)
            skips.append(features)
        for stage, skip in zip(self.up, skips[-2::-1], strict=True):
            features = stage(torch.cat([self.enlarge(features), skip], 1))
        return features


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
