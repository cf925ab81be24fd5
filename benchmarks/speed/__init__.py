"""What balancing costs, as ratios within one interleaved run: `python -m benchmarks.speed`."""
