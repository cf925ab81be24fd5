"""A network as the backbone of denoising tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.diffusion.process import Diffusion, Noisy
from mtl.errors import ConfigError


class Denoiser(nn.Module):
    """Predicts the noise in noisy samples, `gain * eps_hat`, of the shape of x.

    All denoising tasks share all of it: their heads are `nn.Identity`. Samples do not depend on
    each other, so a batch may be evaluated whole or in parts.

    Args:
        network: `(x, t, label) -> output`, of the shape of x; without layers that mix samples.
        diffusion: Says what the output means.
    """

    independent_samples = True

    def __init__(self, network: nn.Module, diffusion: Diffusion) -> None:
        super().__init__()
        self.network = network
        self.diffusion: Diffusion = diffusion
        self.out_channels = 1

    def forward(self, noisy: Noisy) -> Tensor:
        """`gain * eps_hat`."""
        eps = self.predict(noisy.x, noisy.t, noisy.label)
        return noisy.gain.view(-1, *[1] * (eps.dim() - 1)).to(eps.dtype) * eps

    def predict(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """`eps_hat`.

        Args:
            x: `x_t`, `[B, ...]`.
            t: Timesteps of the training schedule, int64 `[B]`.
            label: Classes, int64 `[B]`.
        """
        return self.diffusion.to_eps(self.network(x, t, label), x, t)


class Switched(nn.Module):
    """Several denoisers, each for an interval of timesteps: one predicts where another does not.

    Args:
        denoisers: Of the intervals, from little noise to much.
        bounds: Half-open bounds of the intervals, one more than denoisers, from 0 to T.

    Raises:
        ConfigError: The numbers do not fit, or bounds do not grow from 0 to T.
    """

    def __init__(self, denoisers: Sequence[Denoiser | Switched], bounds: Sequence[int]) -> None:
        super().__init__()
        timesteps = denoisers[0].diffusion.timesteps
        fits = len(bounds) == len(denoisers) + 1 and [bounds[0], bounds[-1]] == [0, timesteps]
        if not fits or list(bounds) != sorted(set(bounds)):
            raise ConfigError(
                f"`bounds` should grow from 0 to {timesteps}, one more than denoisers "
                f"({len(denoisers)}). Got {list(bounds)}."
            )
        self.denoisers = nn.ModuleList(denoisers)
        self.diffusion: Diffusion = denoisers[0].diffusion
        self.bounds = list(bounds)

    def predict(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """`eps_hat` of the denoiser in whose interval t lies."""
        result = torch.empty_like(x)
        for index, denoiser in enumerate(self.denoisers):
            rows = (t >= self.bounds[index]) & (t < self.bounds[index + 1])
            if rows.any():
                result[rows] = denoiser.predict(x[rows], t[rows], label[rows])  # type: ignore[operator]
        return result
