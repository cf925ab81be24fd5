"""Methods that combine per-task gradients, by their Gramian or by the Jacobian."""

from mtl.aggregation.config import ConFIGWeighting
from mtl.aggregation.ema import EMA
from mtl.aggregation.every import Every
from mtl.aggregation.graddrop import GradDrop
from mtl.aggregation.mgda import MGDAWeighting
from mtl.aggregation.pcgrad import PCGradWeighting
from mtl.aggregation.preference import Preference
from mtl.aggregation.torchjd import TorchJDAggregator, TorchJDWeighting, adapt
from mtl.aggregation.trimmed_mean import TrimmedMean
from mtl.parts import Aggregator, Weighting

__all__ = [
    "EMA",
    "Aggregator",
    "ConFIGWeighting",
    "Every",
    "GradDrop",
    "MGDAWeighting",
    "PCGradWeighting",
    "Preference",
    "TorchJDAggregator",
    "TorchJDWeighting",
    "TrimmedMean",
    "Weighting",
    "adapt",
]
