"""Two-task problems with known Pareto fronts, for watching what a method does."""

from benchmarks.toy.problems import PROBLEMS, Problem, descend

__all__ = ["PROBLEMS", "Problem", "descend"]
