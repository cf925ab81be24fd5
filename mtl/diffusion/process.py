"""The forward process of a diffusion model: schedules, noising, and what a network predicts.

Timesteps are `0..T-1` (papers: `1..T`); small t is little noise.
`x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`, and `SNR_t = abar_t / (1 - abar_t)`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mtl.errors import ConfigError

Schedule = Literal["linear", "cosine"]
Prediction = Literal["eps", "x0", "v"]
LossWeights = Literal["min_snr", "p2"]


class Noisy(NamedTuple):
    """Noisy samples, as a denoiser takes them.

    Attributes:
        x: `x_t`, `[B, ...]`.
        t: Timesteps, int64 `[B]`.
        label: Classes, int64 `[B]`; the number of classes itself stands for "no class".
        gain: Factor on the prediction, `[B]`; with the same factor on the target, its square is
            the weight of the sample's loss.
    """

    x: Tensor
    t: Tensor
    label: Tensor
    gain: Tensor


class Diffusion(nn.Module):
    """Noise schedule, kind of prediction, and weight of each timestep's loss.

    Whatever the network predicts, the framework speaks of the noise: `eps_hat` is computed from it,
    and losses are those of `eps_hat`, times a weight w_t.

    | prediction | `eps_hat` of the network's output o | w_t of its own squared error |
    |---|---|---|
    | `eps` | `o` | 1 |
    | `x0` | `(x_t - sqrt(abar_t) o) / sqrt(1 - abar_t)` | `1 / SNR_t` |
    | `v` | `sqrt(abar_t) o + sqrt(1 - abar_t) x_t` | `1 + 1 / SNR_t` |

    Args:
        timesteps: T, at least 1.
        schedule: `linear`: betas from 1e-4 to 0.02 (times 1000 / T). `cosine`: Nichol and
            Dhariwal's, betas at most 0.999.
        prediction: What the network's output means.
        loss_weights: `None`: the weight of the network's own squared error. `min_snr`:
            `min(SNR_t, gamma) / SNR_t`. `p2`: `1 / (k + SNR_t)^gamma`. Both are weights on the
            error of eps, for every kind of prediction.
        gamma: Of `loss_weights`; default 5 for `min_snr`, 1 for `p2`.
        k: Of `p2`.

    Attributes:
        alphas_cumprod: abar, float64 `[T]`, on the CPU.
        log_snr: `log(SNR_t)`, float64 `[T]`, on the CPU.

    Raises:
        ConfigError: An option is unknown or out of range.

    References:
        Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020 (eps, linear).
        https://arxiv.org/abs/2006.11239
        Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021 (cosine).
        https://arxiv.org/abs/2102.09672
        Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022 (v).
        https://arxiv.org/abs/2202.00512
        Hang, Gu, Li, Bao, Chen, Hu, Geng, Guo. Efficient Diffusion Training via Min-SNR Weighting
        Strategy. ICCV 2023. https://arxiv.org/abs/2303.09556
        Choi, Lee, Shin, Kim, Kim, Yoon. Perception Prioritized Training of Diffusion Models.
        CVPR 2022 (P2). https://arxiv.org/abs/2204.00227
    """

    signal: Tensor
    noise: Tensor
    gain: Tensor

    def __init__(
        self,
        *,
        timesteps: int = 1000,
        schedule: Schedule = "linear",
        prediction: Prediction = "eps",
        loss_weights: LossWeights | None = None,
        gamma: float | None = None,
        k: float = 1.0,
    ) -> None:
        super().__init__()
        _check("schedule", schedule, ("linear", "cosine"))
        _check("prediction", prediction, ("eps", "x0", "v"))
        _check("loss_weights", loss_weights, (None, "min_snr", "p2"))
        if timesteps < 1:
            raise ConfigError(f"`timesteps` should be 1 or more. Got {timesteps}.")
        if (gamma is not None and gamma <= 0) or k < 0:
            raise ConfigError(
                f"`gamma` should be positive and `k` 0 or more. Got gamma={gamma}, k={k}."
            )
        self.timesteps = timesteps
        self.prediction = prediction
        betas = _linear(timesteps) if schedule == "linear" else _cosine(timesteps)
        abar = (1 - betas).cumprod(0)
        snr = abar / (1 - abar)
        weights = {
            None: {"eps": torch.ones_like(snr), "x0": 1 / snr, "v": 1 + 1 / snr}[prediction],
            "min_snr": snr.clamp_max(5.0 if gamma is None else gamma) / snr,
            "p2": (k + snr) ** -(1.0 if gamma is None else gamma),
        }[loss_weights]
        self.alphas_cumprod, self.log_snr = abar, snr.log()  # not moved: some devices lack float64
        for name, value in (
            ("signal", abar.sqrt().float()),
            ("noise", (1 - abar).sqrt().float()),
            ("gain", weights.sqrt().float()),
        ):
            self.register_buffer(name, value, persistent=False)

    def add_noise(self, clean: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """`x_t` of clean samples, `[B, ...]`, at timesteps `[B]`.

        Raises:
            ConfigError: A timestep is not in 0..T-1 (on the CPU; a GPU fails by itself).
        """
        if t.device.type == "cpu" and t.numel() and not 0 <= t.min() <= t.max() < self.timesteps:
            raise ConfigError(
                f"Timesteps should be in 0..{self.timesteps - 1}. Got {int(t.min())} to "
                f"{int(t.max())}."
            )
        return _like(self.signal[t], clean) * clean + _like(self.noise[t], clean) * eps

    def to_eps(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """`eps_hat` of a network's output."""
        if self.prediction == "eps":
            return output
        signal, noise = _like(self.signal[t], x), _like(self.noise[t], x)
        if self.prediction == "x0":
            return (x - signal * output) / noise
        return signal * output + noise * x

    def weights(self) -> Tensor:
        """`w_t`, `[T]`: weight of the squared error of `eps_hat`."""
        return self.gain.square()


def _check(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"`{name}` should be one of {choices}. Got {value!r}.")


def _linear(timesteps: int) -> Tensor:
    scale = 1000 / timesteps
    return torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64).mul(scale).clamp_max(0.999)


def _cosine(timesteps: int) -> Tensor:
    grid = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    level = ((grid + 0.008) / 1.008 * torch.pi / 2).cos().square()
    return (1 - level[1:] / level[:-1]).clamp_max(0.999)


def _like(values: Tensor, x: Tensor) -> Tensor:
    """`[B]` as `[B, 1, ...]`."""
    return values.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
