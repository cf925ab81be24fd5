"""Losses that average over the labelled elements only and can say how many there are.

Every loss is the mean over the labelled elements of its batch, and `Loss.count` gives the number n
of them. N processes can therefore combine their means m_i exactly: sum(n_i m_i) / sum(n_i).
"""

from mtl.losses.base import ElementwiseLoss, Loss
from mtl.losses.elementwise import L1, MSE, BinaryCrossEntropy, Cosine, CrossEntropy
from mtl.losses.labels import check_same_shape, has_direction, labelled
from mtl.losses.sample import SampleLoss

__all__ = [
    "L1",
    "MSE",
    "BinaryCrossEntropy",
    "Cosine",
    "CrossEntropy",
    "ElementwiseLoss",
    "Loss",
    "SampleLoss",
    "check_same_shape",
    "has_direction",
    "labelled",
]
