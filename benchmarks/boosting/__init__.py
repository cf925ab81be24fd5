"""Robust multi-task boosting beside other boosting: error, detection, speed and scale."""
