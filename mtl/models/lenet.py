"""LeNet for small pictures."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """Two 5x5 convolutions with pooling and a linear layer, `[B, C, 28, 28] -> [B, out_channels]`.

    Args:
        in_channels: Channels of the input.
        out_channels: Size of the representation.

    References:
        The trunk of Sener and Koltun's MultiMNIST, https://arxiv.org/abs/1810.04650
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 50) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 10, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20 * 4 * 4, out_channels),
            nn.ReLU(),
        )
        self.out_channels = out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """Representation of every picture."""
        return self.layers(inputs)
