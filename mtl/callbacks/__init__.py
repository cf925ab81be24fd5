"""Lightning callbacks: what is recorded, drawn and kept."""

from mtl.callbacks.checkpoint import AtomicCheckpointIO, RandomState
from mtl.callbacks.cosines import GradientCosines
from mtl.callbacks.diagnose import Diagnose
from mtl.callbacks.gates import Gates
from mtl.callbacks.history import History
from mtl.callbacks.pictures import Pictures
from mtl.callbacks.publish import Publish
from mtl.callbacks.search import SearchTrial

__all__ = [
    "AtomicCheckpointIO",
    "Diagnose",
    "Gates",
    "GradientCosines",
    "History",
    "Pictures",
    "Publish",
    "RandomState",
    "SearchTrial",
]
