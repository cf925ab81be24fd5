"""The three dense tasks: segmentation, depth and surface normals, with losses and metrics."""

from __future__ import annotations

from benchmarks.base import Head
from mtl.losses import L1, Cosine, CrossEntropy
from mtl.metrics import (
    AbsoluteError,
    MeanAngle,
    MeanIoU,
    MedianAngle,
    PixelAccuracy,
    RelativeError,
    WithinAngle,
)
from mtl.task import Task


def segmentation(head: Head, num_classes: int) -> Task:
    """Cross entropy over labelled pixels (a negative class is unlabelled)."""
    metrics = {"miou": MeanIoU(num_classes), "pixel_accuracy": PixelAccuracy(num_classes)}
    return Task("segmentation", head(num_classes), CrossEntropy(), metrics)


def depth(head: Head) -> Task:
    """L1 over valid pixels (0 is invalid), in the unit of the data."""
    metrics = {"absolute_error": AbsoluteError(), "relative_error": RelativeError()}
    return Task("depth", head(1), L1(invalid=0.0), metrics)


def normal(head: Head) -> Task:
    """Cosine distance over valid pixels (a zero vector is invalid)."""
    metrics = {
        "mean_angle": MeanAngle(),
        "median_angle": MedianAngle(),
        "within_11_25": WithinAngle(11.25),
        "within_22_5": WithinAngle(22.5),
        "within_30": WithinAngle(30.0),
    }
    return Task("normal", head(3), Cosine(), metrics)
