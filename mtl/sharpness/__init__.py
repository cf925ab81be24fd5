"""Wrappers that take gradients at perturbed parameters."""

from mtl.parts import Sharpness
from mtl.sharpness.joint import JointSAM

__all__ = ["JointSAM", "Sharpness"]
