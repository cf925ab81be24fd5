"""Small backbones and heads. A backbone has `out_channels`: the size that heads attach to."""

from mtl.models.gate import Experts, GatedHead, OutlierGate, gates, outlier_scores, outliers
from mtl.models.heads import DenseHead, MLPHead
from mtl.models.lenet import LeNet
from mtl.models.mlp import MLP
from mtl.models.sharing import HardSharing, SeparateNetworks
from mtl.models.unet import UNet

__all__ = [
    "MLP",
    "DenseHead",
    "Experts",
    "GatedHead",
    "HardSharing",
    "LeNet",
    "MLPHead",
    "OutlierGate",
    "SeparateNetworks",
    "UNet",
    "gates",
    "outlier_scores",
    "outliers",
]
