"""Diffusion transformer of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl.diffusion.embedding import Condition, modulate
from mtl.diffusion.routing import Kind, Routes
from mtl.errors import ConfigError


class DiT(nn.Module):
    """Transformer on patches with adaLN-zero conditioning, `[B, C, H, W] -> [B, C, H, W]`.

    A block adds `u = a + g_2 MLP(modulate(LN(m_t z + a)))` with
    `a = g_1 Attention(modulate(LN(m_t z)))`; shifts, scales and gates come from the condition by a
    layer that starts at zero, so that a block starts as the identity.

    Args:
        in_channels: C.
        size: H = W, a multiple of `patch`.
        patch: Side of a patch.
        width: Channels of a token, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        num_classes: Number of classes; 0: unconditional.
        timesteps: T.
        routing: `dtr`, `random` or `None`; see `Routing`.
        alpha: Of the routing.
        beta: Of the routing.

    The sizes of the paper: S 384, 12, 6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16 (width,
    depth, heads), patch 2.

    Raises:
        ConfigError: Sizes that do not divide.

    References:
        Peebles, Xie. Scalable Diffusion Models with Transformers. ICCV 2023.
        https://arxiv.org/abs/2212.09748
    """

    position: Tensor

    def __init__(
        self,
        *,
        in_channels: int = 1,
        size: int = 28,
        patch: int = 4,
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        num_classes: int = 0,
        timesteps: int = 1000,
        routing: Kind | None = None,
        alpha: float = 4.0,
        beta: float = 0.8,
    ) -> None:
        super().__init__()
        if size % patch or width % heads or width % 4:
            raise ConfigError(
                "`size` should be a multiple of `patch`, and `width` of `heads` and of 4. Got "
                f"size={size}, patch={patch}, width={width}, heads={heads}."
            )
        self.patch = patch
        self.condition = Condition(width, num_classes)
        self.routes = Routes(routing, [width] * depth, timesteps, alpha=alpha, beta=beta)
        self.enter = nn.Conv2d(in_channels, width, patch, patch)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.leave = _zero(nn.Linear(width, in_channels * patch**2))
        self.register_buffer("position", _positions(width, size // patch), persistent=False)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The network's output, of the shape of x."""
        condition = nn.functional.silu(self.condition(t, label))
        z = self.enter(x).flatten(2).transpose(1, 2) + self.position
        for block, mask in zip(self.blocks, self.routes(t, z), strict=True):
            z = z + block(z if mask is None else mask[:, None] * z, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, 2)
        patches = self.leave(modulate(self.norm(z), shift, scale)).transpose(1, 2)
        return nn.functional.fold(patches, x.shape[2:], self.patch, stride=self.patch)


class _Block(nn.Module):
    """The update of a block, without its skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = _zero(nn.Linear(width, 6 * width))
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        parts = self.modulation(condition)[:, None].chunk(6, 2)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        update = gate1 * self._attention(modulate(self.norm(z), shift1, scale1))
        hidden = modulate(self.norm(z + update), shift2, scale2)
        return update + gate2 * self.mlp(hidden)

    def _attention(self, z: Tensor) -> Tensor:
        batch, tokens, width = z.shape
        split = self.attend(z).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))


def _positions(width: int, side: int) -> Tensor:
    """Sines and cosines of row and column, `[1, side^2, width]`."""
    rates = 10000 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    one = torch.cat([angles.sin(), angles.cos()], 1)
    rows = one[:, None].expand(side, side, -1)
    columns = one[None].expand(side, side, -1)
    return torch.cat([rows, columns], 2).reshape(1, side * side, width)


def _zero(layer: nn.Linear) -> nn.Linear:
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer
