"""Which channels a block reads at which timestep: denoising task routing and its control."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mtl.errors import ConfigError

Kind = Literal["dtr", "random"]


class Routing(nn.Module):
    r"""Masks `m_t` on the channels that enter a residual block, `z + Block(m_t * z)`.

    `dtr`: of C channels, `C_b = round(beta C)` adjacent ones are active, beginning at
    `round((C - C_b) (t / (T - 1))^alpha)`. Timesteps that are close share channels; `alpha > 1`
    gives noisy ones more of their own. The output of the block goes to all channels. There are no
    parameters, and `beta = 1` leaves the network as it is, to the bit.

    `random` (R-TR): every timestep has an independent random subset of `C_b` channels, in every
    block another one: the paper's control.

    Args:
        kind: See above.
        channels: C.
        timesteps: T.
        alpha: > 0.
        beta: Share of active channels, over 0 to 1.
        seed: Of the random subsets.

    The official code has `int(beta C)`, which float error can lower by one; its page writes a
    formula that has `C_b` or `C_b + 1` active channels. The code's form is used, rounded.

    Raises:
        ConfigError: An option is out of range.

    References:
        Park, Woo, Go, Kim, Kim. Denoising Task Routing for Diffusion Models. ICLR 2024.
        https://arxiv.org/abs/2310.07138
    """

    start: Tensor
    channel: Tensor
    chosen: Tensor

    def __init__(
        self,
        kind: Kind,
        channels: int,
        timesteps: int,
        *,
        alpha: float = 4.0,
        beta: float = 0.8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if kind not in ("dtr", "random"):
            raise ConfigError(f"`routing` should be dtr, random or null. Got {kind!r}.")
        active = round(beta * channels)
        if alpha <= 0 or not 0 < beta <= 1 or active < 1:
            raise ConfigError(
                "`alpha` should be positive, and `beta` at most 1 and enough for one of "
                f"{channels} channels. Got alpha={alpha}, beta={beta}."
            )
        self.active = active
        grid = torch.arange(timesteps, dtype=torch.float64) / max(timesteps - 1, 1)
        start = ((channels - active) * grid**alpha).round().long()
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("channel", torch.arange(channels), persistent=False)
        chosen = torch.empty(0, channels, dtype=torch.bool)
        if kind == "random":
            generator = torch.Generator().manual_seed(seed)
            ranks = torch.rand(timesteps, channels, generator=generator).argsort(1)
            chosen = torch.zeros(timesteps, channels, dtype=torch.bool)
            chosen.scatter_(1, ranks[:, :active], True)
        self.register_buffer("chosen", chosen, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Active channels at each timestep, bool `[B, C]`."""
        if len(self.chosen):
            return self.chosen[t]
        start = self.start[t, None]
        return (self.channel >= start) & (self.channel < start + self.active)


class Routes(nn.Module):
    """The masks of all routed places of a network, each computed once a forward pass.

    Args:
        routing: `dtr`, `random` or `None`.
        channels: Channels of each place, in order.
        timesteps: T.
        alpha: See `Routing`.
        beta: See `Routing`.
        seed: See `Routing`; place i gets `seed + i`.
    """

    def __init__(
        self,
        routing: Kind | None,
        channels: list[int],
        timesteps: int,
        *,
        alpha: float = 4.0,
        beta: float = 0.8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.places = channels
        self.masks = nn.ModuleDict()
        self.keys: list[str] = []
        if routing is None:
            return
        for place, width in enumerate(channels):
            key = f"{width}_{place}" if routing == "random" else str(width)
            if key not in self.masks:
                self.masks[key] = Routing(
                    routing, width, timesteps, alpha=alpha, beta=beta, seed=seed + place
                )
            self.keys.append(key)

    def forward(self, t: Tensor, like: Tensor) -> list[Tensor | None]:
        """One mask a place, `[B, C]` in the dtype of `like`; `None` where nothing is routed."""
        if not self.keys:
            return [None] * len(self.places)
        masks = {key: routing(t).to(like.dtype) for key, routing in self.masks.items()}
        return [masks[key] for key in self.keys]
