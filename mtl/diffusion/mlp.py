"""A residual multilayer perceptron that denoises vectors and small pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl.diffusion.embedding import Condition, modulate
from mtl.diffusion.routing import Kind, Routes


class ResidualMLP(nn.Module):
    """Residual blocks modulated by timestep and class, `[B, ...] -> [B, ...]`.

    A block is `z + W_2 silu(W_1 modulate(LN(m_t z)))`; `W_2` and the last layer start at zero.

    Args:
        features: Number of elements of a sample.
        width: Channels of the blocks.
        blocks: Number of blocks.
        num_classes: Number of classes; 0: unconditional.
        timesteps: T.
        routing: `dtr`, `random` or `None`; see `Routing`.
        alpha: Of the routing.
        beta: Of the routing.
    """

    def __init__(
        self,
        features: int,
        *,
        width: int = 64,
        blocks: int = 3,
        num_classes: int = 0,
        timesteps: int = 1000,
        routing: Kind | None = None,
        alpha: float = 4.0,
        beta: float = 0.8,
    ) -> None:
        super().__init__()
        self.condition = Condition(width, num_classes)
        self.routes = Routes(routing, [width] * blocks, timesteps, alpha=alpha, beta=beta)
        self.enter = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = _zero(nn.Linear(width, features))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The network's output, of the shape of x."""
        condition = nn.functional.silu(self.condition(t, label))
        z = self.enter(x.flatten(1))
        for block, mask in zip(self.blocks, self.routes(t, z), strict=True):
            z = z + block(z if mask is None else mask * z, condition)
        return self.leave(self.norm(z)).view_as(x)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.first = nn.Linear(width, 2 * width)
        self.second = _zero(nn.Linear(2 * width, width))

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition).chunk(2, 1)
        hidden = self.first(modulate(self.norm(z), shift, scale))
        return self.second(nn.functional.silu(hidden))


def _zero(layer: nn.Linear) -> nn.Linear:
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer
