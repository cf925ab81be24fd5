"""Differentiable maps of the losses; by the chain rule they go with every combiner."""

from mtl.parts import Transform
from mtl.transforms.log import Log

__all__ = ["Log", "Transform"]
