"""Samples from a denoiser, by the samplers of the package diffusers (extra `[diffusion]`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mtl.diffusion.process import Diffusion
from mtl.errors import ConfigError

Sampler = Literal["ddim", "ancestral"]


class Predictor(Protocol):
    """What is sampled from: a `Denoiser`, or several of them as one."""

    diffusion: Diffusion

    def predict(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """`eps_hat`, `[B, ...]`."""


@torch.no_grad()
def sample(
    denoiser: Predictor,
    shape: Sequence[int],
    *,
    generator: torch.Generator,
    label: Tensor | None = None,
    no_label: int = 0,
    guidance: float = 1.0,
    sampler: Sampler | Any = "ddim",
    steps: int = 50,
    clip: float | None = None,
) -> Tensor:
    """Draws samples.

    Args:
        denoiser: Predicts the noise; at timesteps of the training schedule, however few are used.
        shape: `[B, ...]`.
        generator: Decides the draws, and the device.
        label: Classes, int64 `[B]`; default: all `no_label`.
        no_label: The index that stands for "no class".
        guidance: Scale s of classifier-free guidance, `eps(none) + s (eps(c) - eps(none))`; 1: the
            conditional prediction itself. Other values take two evaluations a step.
        sampler: `ddim` (deterministic), `ancestral` (DDPM), or a scheduler of diffusers for the
            prediction of eps.
        steps: Number of evaluations, 1 to T.
        clip: Predictions of x_0 are kept in `[-clip, clip]`; `None`: as they are. An error of
            eps at the noisiest step is multiplied by `1 / sqrt(SNR)` in x_0, so without clipping
            it decides everything.

    Returns:
        Samples, `shape`.

    Raises:
        ConfigError: diffusers is missing, the sampler is unknown, or the number of steps.

    References:
        Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021.
        https://arxiv.org/abs/2010.02502
        Ho, Salimans. Classifier-Free Diffusion Guidance. 2022. https://arxiv.org/abs/2207.12598
    """
    diffusion = denoiser.diffusion
    if not 1 <= steps <= diffusion.timesteps:
        raise ConfigError(
            f"`steps` should be between 1 and {diffusion.timesteps}, the number of timesteps. Got "
            f"{steps}."
        )
    scheduler = _scheduler(sampler, diffusion, clip) if isinstance(sampler, str) else sampler
    device = generator.device
    scheduler.set_timesteps(steps, device=device)
    x = torch.randn(*shape, generator=generator, device=device)
    none = torch.full((len(x),), no_label, device=device)
    label = none if label is None else label
    for time in scheduler.timesteps:
        t = time.to(device).expand(len(x))
        eps = denoiser.predict(scheduler.scale_model_input(x, time), t, label)
        if guidance != 1:
            base = denoiser.predict(scheduler.scale_model_input(x, time), t, none)
            eps = base + guidance * (eps - base)
        x = scheduler.step(eps, time, x, generator=generator).prev_sample
    return x


def _scheduler(name: str, diffusion: Diffusion, clip: float | None) -> Any:
    try:
        from diffusers import DDIMScheduler, DDPMScheduler
    except ImportError as error:
        raise ConfigError(
            "Sampling needs the package diffusers, which is not installed. Install the extra: "
            'pip install -e ".[diffusion]".'
        ) from error
    kinds = {"ddim": DDIMScheduler, "ancestral": DDPMScheduler}
    if name not in kinds:
        raise ConfigError(f"`sampler` should be one of {list(kinds)}. Got {name!r}.")
    abar = diffusion.alphas_cumprod.double().cpu()
    betas = 1 - abar / torch.cat([torch.ones(1, dtype=abar.dtype), abar[:-1]])
    return kinds[name](
        num_train_timesteps=diffusion.timesteps,
        trained_betas=betas.numpy().astype("float32"),
        prediction_type="epsilon",
        timestep_spacing="trailing",
        clip_sample=clip is not None,
        clip_sample_range=1.0 if clip is None else clip,
    )
