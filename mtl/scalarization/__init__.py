"""Methods that weigh the losses: one scalar to minimize, or weights learned by a rule."""

from mtl.parts import Scalarizer
from mtl.scalarization.constant import ConstantWeights
from mtl.scalarization.dwa import DynamicWeightAverage
from mtl.scalarization.equal import EqualWeighting
from mtl.scalarization.famo import FAMO
from mtl.scalarization.gls import GeometricMean
from mtl.scalarization.gradnorm import GradNorm
from mtl.scalarization.group_dro import GroupDRO
from mtl.scalarization.imtl_l import IMTLLoss
from mtl.scalarization.rlw import RandomLossWeighting
from mtl.scalarization.stch import STCH
from mtl.scalarization.uncertainty import UncertaintyWeighting

__all__ = [
    "FAMO",
    "STCH",
    "ConstantWeights",
    "DynamicWeightAverage",
    "EqualWeighting",
    "GeometricMean",
    "GradNorm",
    "GroupDRO",
    "IMTLLoss",
    "RandomLossWeighting",
    "Scalarizer",
    "UncertaintyWeighting",
]
