"""Differentiable maps of the losses; by the chain rule they go with every combiner."""

from mtl.parts import Transform
from mtl.transforms.imtl_l import IMTLScale
from mtl.transforms.interval_clustering import IntervalClustering
from mtl.transforms.intervals import clustering_cost, interval_clusters
from mtl.transforms.log import Log
from mtl.transforms.relative import Relative

__all__ = [
    "IMTLScale",
    "IntervalClustering",
    "Log",
    "Relative",
    "Transform",
    "clustering_cost",
    "interval_clusters",
]
