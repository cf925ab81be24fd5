"""Lightning callbacks: what is recorded, drawn and kept."""

from mtl.callbacks.best_epoch import BestEpoch
from mtl.callbacks.checkpoint import AtomicCheckpointIO, RandomState
from mtl.callbacks.cosines import GradientCosines
from mtl.callbacks.ema import WeightAverage
from mtl.callbacks.gates import Gates
from mtl.callbacks.history import History
from mtl.callbacks.last_epochs import LastEpochs
from mtl.callbacks.pictures import Pictures
from mtl.callbacks.samples import Samples

__all__ = [
    "AtomicCheckpointIO",
    "BestEpoch",
    "Gates",
    "GradientCosines",
    "History",
    "LastEpochs",
    "Pictures",
    "RandomState",
    "Samples",
    "WeightAverage",
]
