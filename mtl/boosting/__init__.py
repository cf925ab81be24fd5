"""Gradient boosting of many tasks that finds and contains outlier tasks."""

from mtl.boosting.classifier import RMTGBClassifier
from mtl.boosting.regressor import RMTGBRegressor

__all__ = ["RMTGBClassifier", "RMTGBRegressor"]
