"""Wrappers that take gradients at perturbed parameters."""

from mtl.parts import Sharpness
from mtl.sharpness.joint import JointSAM
from mtl.sharpness.task_sam import TaskSAM

__all__ = ["JointSAM", "Sharpness", "TaskSAM"]
