"""Metrics with exact global definitions, and the summaries against single-task baselines.

The metrics are `torchmetrics.Metric` classes: their states are sums over everything seen, so the
value does not depend on how the set is cut into batches or spread over processes. Before anything
valid has been seen the value is NaN.
"""

from mtl.metrics.delta import delta_m, delta_p, relative_gain
from mtl.metrics.depth import AbsoluteError, RelativeError
from mtl.metrics.distribution import frechet_distance, precision_recall
from mtl.metrics.normals import MeanAngle, MedianAngle, WithinAngle
from mtl.metrics.segmentation import MeanIoU, PixelAccuracy

__all__ = [
    "AbsoluteError",
    "MeanAngle",
    "MeanIoU",
    "MedianAngle",
    "PixelAccuracy",
    "RelativeError",
    "WithinAngle",
    "delta_m",
    "delta_p",
    "frechet_distance",
    "precision_recall",
    "relative_gain",
]
