"""Backbones and heads. A backbone has `out_channels`: the size that heads attach to.

Those with pretrained weights are from timm and torchvision (extra `vision`), imported when one is
made.
"""

from mtl.models.deeplab import DeepLabHead, DilatedResNet
from mtl.models.gate import Experts, GatedHead, OutlierGate, gates, outlier_scores, outliers
from mtl.models.heads import DenseHead, MLPHead
from mtl.models.lenet import LeNet
from mtl.models.mlp import MLP
from mtl.models.pretrained import require
from mtl.models.resnet import ResNet
from mtl.models.segnet_mtan import MTANHeads, SegNet
from mtl.models.sharing import HardSharing, SeparateNetworks
from mtl.models.unet import UNet

__all__ = [
    "MLP",
    "DeepLabHead",
    "DenseHead",
    "DilatedResNet",
    "Experts",
    "GatedHead",
    "HardSharing",
    "LeNet",
    "MLPHead",
    "MTANHeads",
    "OutlierGate",
    "ResNet",
    "SegNet",
    "SeparateNetworks",
    "UNet",
    "gates",
    "outlier_scores",
    "outliers",
    "require",
]
