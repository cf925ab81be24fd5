"""Rep-MTL beside other balancers, heads light to heavy: `python -m benchmarks.speed.rep_mtl`."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.base import Batch
from benchmarks.speed.gradients import GradientCost
from mtl import MultiTaskModel, Task
from mtl.losses import L1, Cosine, CrossEntropy
from mtl.models import DenseHead, UNet

PRESETS = ("ew", "ew_log", "rep_mtl", "pcgrad", "nash_mtl")


class ConvHead(nn.Sequential):
    """3x3 convolution with BatchNorm and ReLU, then 1x1."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, out_channels, 1),
        )


class Dilated(nn.Module):
    """ResNet-50 without its pyramid: `[B, 3, H, W] -> [B, 2048, H/8, W/8]`."""

    out_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model(
            "resnet50", features_only=True, output_stride=8, out_indices=(4,)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures)[0]


class DeepLab(nn.Module):
    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
        self.head = DeepLabHead(channels, out_channels, atrous_rates=(12, 24, 36))

    def forward(self, features: Tensor) -> Tensor:
        h, w = features.shape[2:]
        return functional.interpolate(self.head(features), size=(8*h, 8*w), mode="bilinear", align_corners=True)


def problem(
    backbone: Callable[[], nn.Module],
    head: Callable[[int, int], nn.Module],
    shape: tuple[int, int, int],
) -> GradientCost:
    """NYUv2's three tasks on random pictures, `[B, H, W]`."""
    samples, height, width = shape
    torch.manual_seed(0)
    batch: Batch = (
        torch.randn(samples, 3, height, width),
        {
            "segmentation": torch.randint(0, 13, (samples, height, width)),
            "depth": torch.rand(samples, 1, height, width) + 0.5,
            "normal": functional.normalize(torch.randn(samples, 3, height, width), dim=1),
        },
    )

    def model() -> tuple[MultiTaskModel, list[Task]]:
        torch.manual_seed(0)
        trunk = backbone()
        width = trunk.out_channels
        tasks = [
            Task("segmentation", head(width, 13), CrossEntropy()),
            Task("depth", head(width, 1), L1(invalid=0.0)),
            Task("normal", head(width, 3), Cosine()),
        ]
        return MultiTaskModel(trunk, tasks), tasks

    return GradientCost(model, batch)
PROBLEMS={"unet1":lambda:problem(UNet,DenseHead,(16,64,64)),"unetc":lambda:problem(UNet,ConvHead,(16,64,64)),"deeplab":lambda:problem(Dilated,DeepLab,(2,96,128))}
