"""Methods that combine per-task gradients, by their Gramian or by the Jacobian."""

from mtl.aggregation.graddrop import GradDrop
from mtl.aggregation.mgda import MGDAWeighting
from mtl.aggregation.pcgrad import PCGradWeighting
from mtl.parts import Aggregator, Weighting

__all__ = ["Aggregator", "GradDrop", "MGDAWeighting", "PCGradWeighting", "Weighting"]
