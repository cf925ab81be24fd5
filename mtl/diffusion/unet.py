"""Small U-Net that denoises pictures."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from mtl.diffusion.embedding import Condition, modulate
from mtl.diffusion.routing import Kind, Routes


class DenoisingUNet(nn.Module):
    """Residual blocks at three resolutions with skips, `[B, C, H, W] -> [B, C, H, W]`.

    A block is `z + conv_2(m_t silu(modulate(GN(conv_1(silu(GN(z)))))))` (with a 1x1 convolution on
    the skip where channels change); `conv_2` starts at zero. As in ADM, the routing masks what
    enters it.

    Args:
        in_channels: C.
        width: Channels at full resolution, doubled once; a multiple of 8.
        num_classes: Number of classes; 0: unconditional.
        timesteps: T.
        routing: `dtr`, `random` or `None`; see `Routing`.
        alpha: Of the routing.
        beta: Of the routing.

    Heights and widths are multiples of 4.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        width: int = 32,
        num_classes: int = 0,
        timesteps: int = 1000,
        routing: Kind | None = None,
        alpha: float = 4.0,
        beta: float = 0.8,
    ) -> None:
        super().__init__()
        widths = [width, 2 * width, 2 * width]
        self.condition = Condition(2 * width, num_classes)
        self.enter = nn.Conv2d(in_channels, width, 3, padding=1)
        down = [_Block(a, b, 2 * width) for a, b in itertools.pairwise([width, *widths])]
        up = [
            _Block(before + skip, skip, 2 * width)
            for before, skip in itertools.pairwise(reversed(widths))
        ]
        self.blocks = nn.ModuleList([*down, *up])
        self.shrink = nn.AvgPool2d(2)
        self.enlarge = nn.Upsample(scale_factor=2)
        self.norm = nn.GroupNorm(8, width)
        self.leave = _zero(nn.Conv2d(width, in_channels, 3, padding=1))
        self.routes = Routes(
            routing, [b.channels for b in [*down, *up]], timesteps, alpha=alpha, beta=beta
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The network's output, of the shape of x."""
        condition = nn.functional.silu(self.condition(t, label))
        masks = iter(self.routes(t, x))
        blocks = iter(self.blocks)
        z = next(blocks)(self.enter(x), condition, next(masks))
        skips = []
        for _ in range(2):
            skips.append(z)
            z = next(blocks)(self.shrink(z), condition, next(masks))
        while skips:
            z = torch.cat([self.enlarge(z), skips.pop()], 1)
            z = next(blocks)(z, condition, next(masks))
        return self.leave(nn.functional.silu(self.norm(z)))


class _Block(nn.Module):
    def __init__(self, before: int, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm1 = nn.GroupNorm(8, before)
        self.conv1 = nn.Conv2d(before, channels, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = _zero(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = nn.Conv2d(before, channels, 1) if before != channels else nn.Identity()

    def forward(self, z: Tensor, condition: Tensor, mask: Tensor | None) -> Tensor:
        hidden = self.conv1(nn.functional.silu(self.norm1(z)))
        shift, scale = self.modulation(condition)[:, :, None, None].chunk(2, 1)
        hidden = nn.functional.silu(modulate(self.norm2(hidden), shift, scale))
        if mask is not None:
            hidden = mask[:, :, None, None] * hidden
        return self.skip(z) + self.conv2(hidden)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    torch.nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)
    return layer
