"""Denoising diffusion as many ordered tasks."""

from mtl.diffusion.denoiser import Denoiser, Switched
from mtl.diffusion.dit import DiT
from mtl.diffusion.intervals import Intervals, sorted_by_time
from mtl.diffusion.loss import NoiseError
from mtl.diffusion.mlp import ResidualMLP
from mtl.diffusion.process import Diffusion, Noisy
from mtl.diffusion.routing import Routing
from mtl.diffusion.sampling import sample
from mtl.diffusion.unet import DenoisingUNet

__all__ = [
    "Denoiser",
    "DenoisingUNet",
    "DiT",
    "Diffusion",
    "Intervals",
    "NoiseError",
    "Noisy",
    "ResidualMLP",
    "Routing",
    "Switched",
    "sample",
    "sorted_by_time",
]
