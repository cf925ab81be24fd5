"""A mixture of Gaussians in the plane, whose optimal denoiser is known in closed form."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.diffusion.base import CleanData, DiffusionBenchmark
from mtl.diffusion import Diffusion, Noisy

_SEEDS = {"train": 11, "val": 12, "test": 13, "reference": 14}


class GaussianMixture:
    """25 modes on a 5x5 grid, each with standard deviation `sigma`; unit variance overall.

    Args:
        sigma: Over 0, below 1.
    """

    def __init__(self, sigma: float = 0.053) -> None:
        self.sigma = sigma
        grid = torch.arange(-2.0, 3.0, dtype=torch.float64) * math.sqrt((1 - sigma**2) / 2)
        self.means = torch.cartesian_prod(grid, grid)

    def draw(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Points `[n, 2]`, float32, and the modes they are from, `[n]`."""
        generator = torch.Generator().manual_seed(seed)
        mode = torch.randint(len(self.means), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return (self.means[mode] + self.sigma * noise).float(), mode

    def log_density(self, x: Tensor, abar: Tensor) -> Tensor:
        """`log p_t(x)` of noisy points, `[B]`, up to a constant; abar is `[B]`."""
        log_weights, variance = self._log_weights(x, abar)
        return log_weights.logsumexp(1) - variance.log()

    def optimal_eps(self, x: Tensor, abar: Tensor) -> Tensor:
        """`E[eps | x_t]`: no denoiser has a lower squared error.

        Args:
            x: Noisy points, `[B, 2]`.
            abar: `[B]`.
        """
        log_weights, variance = self._log_weights(x, abar)
        mean = log_weights.softmax(1) @ self.means.to(x)
        center = abar.sqrt()[:, None] * mean
        return (1 - abar).sqrt()[:, None] * (x - center) / variance[:, None]

    def _log_weights(self, x: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
        variance = abar * self.sigma**2 + 1 - abar
        centers = abar.sqrt()[:, None, None] * self.means.to(x)
        distance = (x[:, None] - centers).square().sum(2)
        return -distance / (2 * variance[:, None]), variance


class DiffusionGMM(DiffusionBenchmark):
    """Points of the mixture. Targets of validation and test are the optimal predictions.

    So a task's loss there is its excess risk, `E |eps_hat - E[eps | x_t]|^2` a dimension, without
    the part that no denoiser can avoid.

    Args:
        diffusion: The process.
        train_count: Number of points to train on.
        options: See `DiffusionBenchmark`; without classes.
    """

    metric = "excess_risk"
    sample_range = 2.0

    def __init__(self, diffusion: Diffusion, *, train_count: int = 100000, **options: Any) -> None:
        super().__init__(diffusion, **options)
        self.mixture = GaussianMixture()
        self.train_count = train_count

    @property
    def shape(self) -> tuple[int, ...]:
        """A point."""
        return (2,)

    def clean(self, part: str) -> CleanData:
        """Points of the mixture."""
        points, _ = self.mixture.draw(self.train_count, _SEEDS[part])
        return CleanData(points, torch.zeros(len(points), dtype=torch.int64))

    def target(self, noisy: Noisy, eps: Tensor) -> Tensor:
        """The optimal prediction."""
        abar = self.diffusion.alphas_cumprod[noisy.t.cpu()]
        return self.mixture.optimal_eps(noisy.x.double(), abar.to(noisy.x.device)).to(eps)

    def features(self, samples: Tensor) -> np.ndarray:
        """The points themselves."""
        return samples.double().numpy()

    def reference(self, count: int) -> Tensor:
        """Fresh points."""
        return self.mixture.draw(count, _SEEDS["reference"])[0]

    def quality(self, samples: Tensor) -> dict[str, float]:
        """Also: share of samples within 3 sigma of a mode, and how evenly they fill the modes.

        `mode_tv` is half the sum of `|share of the mode - 1/25|`, 0 to 1.
        """
        distances = torch.cdist(samples.double(), self.mixture.means)
        nearest, mode = distances.min(1)
        shares = torch.bincount(mode, minlength=len(self.mixture.means)) / len(samples)
        near = float((nearest <= 3 * self.mixture.sigma).double().mean())
        spread = float((shares - 1 / len(shares)).abs().sum() / 2)
        return super().quality(samples) | {"near_mode": near, "mode_tv": spread}

    def sheet(self, samples: Tensor) -> Image.Image:
        """A scatter plot."""
        from matplotlib.figure import Figure

        means = self.mixture.means
        figure = Figure(figsize=(4, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.scatter(samples[:, 0], samples[:, 1], s=2, alpha=0.5, color="#0072B2")
        axes.scatter(means[:, 0], means[:, 1], s=6, color="#D55E00", marker="+")
        axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110)
        return Image.open(buffer).convert("RGB")
