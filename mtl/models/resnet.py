"""A residual network with one fully connected layer, for whole pictures."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mtl.models.pretrained import create


class ResNet(nn.Module):
    """A residual network, pooled, and a linear layer, `[B, 3, H, W] -> [B, out_channels]`.

    LibMTL's encoder for Office: ResNet-18, average pooling, then linear, batch normalisation,
    ReLU and dropout.

    Args:
        name: A network of timm. The default has torchvision's first ImageNet weights, as LibMTL.
        pretrained: Whether to start from them; or a file that holds them.
        out_channels: Width of the linear layer.
        dropout: Probability in [0, 1).

    Raises:
        ConfigError: timm is missing, or the weights are.
    """

    packages: ClassVar = ("timm",)

    def __init__(
        self,
        name: str = "resnet18.tv_in1k",
        *,
        pretrained: bool | str = False,
        out_channels: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.network = create(name, pretrained=pretrained, num_classes=0)
        self.layers = nn.Sequential(
            nn.Linear(self.network.num_features, out_channels),  # type: ignore[arg-type]
            nn.BatchNorm1d(out_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.out_channels = out_channels

    def forward(self, pictures: Tensor) -> Tensor:
        """Representation of every picture."""
        return self.layers(self.network(pictures))
