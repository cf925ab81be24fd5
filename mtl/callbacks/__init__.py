"""Lightning callbacks: what is recorded, drawn and kept."""

from mtl.callbacks.best_epoch import BestEpoch
from mtl.callbacks.checkpoint import AtomicCheckpointIO, RandomState
from mtl.callbacks.cosines import GradientCosines
from mtl.callbacks.history import History
from mtl.callbacks.last_epochs import LastEpochs
from mtl.callbacks.pictures import Pictures

__all__ = [
    "AtomicCheckpointIO",
    "BestEpoch",
    "GradientCosines",
    "History",
    "LastEpochs",
    "Pictures",
    "RandomState",
]
