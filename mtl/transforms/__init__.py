"""Differentiable maps of the losses; by the chain rule they go with every combiner."""

from mtl.parts import Transform
from mtl.transforms.log import Log
from mtl.transforms.relative import Relative

__all__ = ["Log", "Relative", "Transform"]
