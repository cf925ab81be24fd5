"""Small dense problems on Gramians: exact, in float64."""

from mtl.linalg.affinity import gram_cosines, gram_norm, gram_products, nonzero
from mtl.linalg.bargaining import fair_weights
from mtl.linalg.dependent import least_norm_solution, principal_components
from mtl.linalg.equilibrate import Equilibrated, equilibrate
from mtl.linalg.gramian import cosines, finest, gramian, inner_products
from mtl.linalg.lengths import lengths
from mtl.linalg.min_norm import min_norm_weights
from mtl.linalg.product import Product, dense
from mtl.linalg.quadratic import NonnegativeQP
from mtl.linalg.simplex import project_simplex

__all__ = [
    "Equilibrated",
    "NonnegativeQP",
    "Product",
    "cosines",
    "dense",
    "equilibrate",
    "fair_weights",
    "finest",
    "gram_cosines",
    "gram_norm",
    "gram_products",
    "gramian",
    "inner_products",
    "least_norm_solution",
    "lengths",
    "min_norm_weights",
    "nonzero",
    "principal_components",
    "project_simplex",
]
