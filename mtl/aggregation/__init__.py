"""Methods that combine per-task gradients, by their Gramian or by the Jacobian."""

from mtl.aggregation.aligned_mtl import AlignedMTLWeighting
from mtl.aggregation.cagrad import CAGradWeighting
from mtl.aggregation.config import ConFIGWeighting
from mtl.aggregation.db_mtl import DBMTL
from mtl.aggregation.dualproj import DualProjWeighting
from mtl.aggregation.ema import EMA
from mtl.aggregation.every import Every
from mtl.aggregation.excess_mtl import ExcessMTL
from mtl.aggregation.fairgrad import FairGradWeighting
from mtl.aggregation.graddrop import GradDrop
from mtl.aggregation.gradvac import GradVacWeighting
from mtl.aggregation.imtl_g import IMTLGWeighting
from mtl.aggregation.krum import KrumWeighting
from mtl.aggregation.mgda import MGDAWeighting
from mtl.aggregation.moco import MoCo
from mtl.aggregation.nash_mtl import NashMTLWeighting
from mtl.aggregation.outlier_weights import OutlierWeighting
from mtl.aggregation.pcgrad import PCGradWeighting
from mtl.aggregation.preference import Preference
from mtl.aggregation.sdmgrad import SDMGradWeighting
from mtl.aggregation.torchjd import TorchJDAggregator, TorchJDWeighting, adapt
from mtl.aggregation.trimmed_mean import TrimmedMean
from mtl.aggregation.upgrad import UPGradWeighting
from mtl.parts import Aggregator, Weighting

__all__ = [
    "DBMTL",
    "EMA",
    "Aggregator",
    "AlignedMTLWeighting",
    "CAGradWeighting",
    "ConFIGWeighting",
    "DualProjWeighting",
    "Every",
    "ExcessMTL",
    "FairGradWeighting",
    "GradDrop",
    "GradVacWeighting",
    "IMTLGWeighting",
    "KrumWeighting",
    "MGDAWeighting",
    "MoCo",
    "NashMTLWeighting",
    "OutlierWeighting",
    "PCGradWeighting",
    "Preference",
    "SDMGradWeighting",
    "TorchJDAggregator",
    "TorchJDWeighting",
    "TrimmedMean",
    "UPGradWeighting",
    "Weighting",
    "adapt",
]
