"""DeepLabV3 in parts: a dilated residual network as backbone, and a head a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mtl.errors import ConfigError
from mtl.models.pretrained import create, vision

STRIDE = 8


class DilatedResNet(nn.Module):
    """Features of a residual network at an eighth of the size, `[B, 3, H, W] -> [B, C, H/8, W/8]`.

    The strides of the last two stages are replaced by dilation. C is 2048 for ResNet-50 and 512 for
    ResNet-18 and ResNet-34.

    Args:
        name: A residual network of timm. The default has torchvision's first ImageNet weights,
            as LibMTL.
        pretrained: Whether to start from them; or a file that holds them.

    Raises:
        ConfigError: timm is missing, or the weights are.
    """

    packages: ClassVar = ("timm",)

    def __init__(self, name: str = "resnet50.tv_in1k", *, pretrained: bool | str = False) -> None:
        super().__init__()
        self.network = create(
            name, pretrained=pretrained, features_only=True, output_stride=STRIDE, out_indices=[4]
        )
        (self.out_channels,) = self.network.feature_info.channels()  # type: ignore[operator,union-attr]

    def forward(self, pictures: Tensor) -> Tensor:
        """Representation at an eighth of the size.

        Raises:
            ConfigError: Height or width is no multiple of 8.
        """
        if pictures.shape[-2] % STRIDE or pictures.shape[-1] % STRIDE:
            raise ConfigError(
                f"DilatedResNet: expected height and width to be multiples of {STRIDE}, got "
                f"{list(pictures.shape[-2:])}; change dataset.resize."
            )
        (features,) = self.network(pictures)
        return features


class DeepLabHead(nn.Module):
    """Atrous pyramid, a 3x3 convolution, a 1x1 one, eight times enlarged.

    `[B, C, h, w] -> [B, out_channels, 8h, 8w]`, bilinear with aligned corners. It is what LibMTL
    calls DeepLabV3+ and Rep-MTL's and DB-MTL's tables use: DeepLabV3, without the skip connection
    from early features. A training batch needs two pictures or more: the pyramid normalises
    one value a picture and channel.

    Args:
        in_channels: Channels of the representation.
        out_channels: Channels of the prediction.
        channels: Width of the head.
        rates: Dilations of the pyramid's 3x3 convolutions.

    Raises:
        ConfigError: torchvision is missing.

    References:
        Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017,
        https://arxiv.org/abs/1706.05587
    """

    packages: ClassVar = ("torchvision",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
    ) -> None:
        super().__init__()
        pyramid = vision("torchvision.models.segmentation.deeplabv3").ASPP
        self.layers = nn.Sequential(
            pyramid(in_channels, list(rates), channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Prediction at the size of the pictures."""
        small = self.layers(features)
        return F.interpolate(small, scale_factor=STRIDE, mode="bilinear", align_corners=True)
