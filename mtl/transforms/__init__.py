"""Differentiable maps of the losses; by the chain rule they go with every combiner."""

from mtl.parts import Transform
from mtl.transforms.interval_clustering import IntervalClustering
from mtl.transforms.intervals import clustering_cost, interval_clusters
from mtl.transforms.log import Log

__all__ = ["IntervalClustering", "Log", "Transform", "clustering_cost", "interval_clusters"]
