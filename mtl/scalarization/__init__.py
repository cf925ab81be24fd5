"""Methods that turn the losses into one scalar (no per-task gradients)."""

from mtl.parts import Scalarizer
from mtl.scalarization.dwa import DynamicWeightAverage
from mtl.scalarization.equal import EqualWeighting
from mtl.scalarization.rlw import RandomLossWeighting
from mtl.scalarization.uncertainty import UncertaintyWeighting

__all__ = [
    "DynamicWeightAverage",
    "EqualWeighting",
    "RandomLossWeighting",
    "Scalarizer",
    "UncertaintyWeighting",
]
