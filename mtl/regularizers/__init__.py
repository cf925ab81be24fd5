"""Extra scalars of a step that are added to the objective after the combination."""

from mtl.parts import Regularizer
from mtl.regularizers.activity import Activity
from mtl.regularizers.alignment import CSA, csa
from mtl.regularizers.regulation import TSR, tsr

__all__ = ["CSA", "TSR", "Activity", "Regularizer", "csa", "tsr"]
