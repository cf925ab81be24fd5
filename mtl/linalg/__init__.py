"""Small dense problems on Gramians: exact, in float64."""

from mtl.linalg.gramian import cosines, gramian, inner_products
from mtl.linalg.min_norm import min_norm_weights

__all__ = ["cosines", "gramian", "inner_products", "min_norm_weights"]
