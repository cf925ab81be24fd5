"""Small dense problems on Gramians: exact, in float64."""

from mtl.linalg.gramian import cosines, gramian
from mtl.linalg.min_norm import min_norm_weights

__all__ = ["cosines", "gramian", "min_norm_weights"]
