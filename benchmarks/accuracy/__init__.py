"""How far weights are from the optimum that they stand for: `python -m benchmarks.accuracy`."""
