"""Multi-task optimization: any balancing method with any model, on plain PyTorch or Lightning."""

from mtl.balancer import Balancer, Report
from mtl.errors import MTLError
from mtl.model import MultiTaskModel, Outputs
from mtl.module import MTLModule
from mtl.parts import Aggregator, Regularizer, Scalarizer, Sharpness, Transform, Weighting
from mtl.step import Step
from mtl.task import Task

__version__ = "0.1.0"

__all__ = [
    "Aggregator",
    "Balancer",
    "MTLError",
    "MTLModule",
    "MultiTaskModel",
    "Outputs",
    "Regularizer",
    "Report",
    "Scalarizer",
    "Sharpness",
    "Step",
    "Task",
    "Transform",
    "Weighting",
]
