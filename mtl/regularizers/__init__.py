"""Extra scalars of a step that are added to the objective after the combination."""

from mtl.parts import Regularizer
from mtl.regularizers.activity import Activity

__all__ = ["Activity", "Regularizer"]
