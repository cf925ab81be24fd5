"""Gradients that weightings are tested on, and what tests say about directions."""

import torch
from hypothesis import strategies as st

from benchmarks.accuracy.families import FAMILIES, rows_of

gradients = st.builds(
    rows_of,
    family=st.sampled_from(FAMILIES),
    count=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    width=st.sampled_from([9, 30]),
)

DEGENERATE = {
    "zeros": torch.zeros(3, 4),
    "one zero row": torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [-1, 0, 0, 1]]),
    "identical": torch.tensor([[1.0, -2, 3, 4]]).repeat(3, 1),
    "nearly identical": torch.tensor([[1.0, -2, 3, 4], [1.0, -2, 3, 4 + 1e-6], [1.0, -2, 3, 4]]),
    "one task": torch.tensor([[1.0, -2, 3, 4]]),
    "one zero task": torch.zeros(1, 4),
    "opposite": torch.tensor([[1.0, -2, 3, 4], [-1, 2, -3, -4]]),
    "opposite and long": torch.tensor([[1.0, -2, 3, 4], [-1e6, 2e6, -3e6, -4e6]]),
    "opposite and another": torch.tensor([[1.0, -2, 3, 4], [-1, 2, -3, -4], [0, 1, 1, 1]]),
    "nearly opposite": torch.tensor([[1.0, -2, 3, 4], [-1, 2, -3, -4 + 1e-6]]),
    "around the origin": torch.tensor([[1.0, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]),
    "more tasks than columns": torch.tensor([[1.0, 1], [1, -1], [2, 1], [-1, 3], [0, 1]]),
    "one tiny row": torch.tensor([[1.0, 2, 3, 4], [1e-20, 0, 0, 1e-20], [-1, 0, 0, 1]]),
    "no columns": torch.zeros(3, 0),
}


def direction(method, rows):
    """Of a weighting, without its state being shared between calls."""
    return method(rows @ rows.T) @ rows


def angle(first, second):
    """Distance of two vectors after the best scaling of the first, relative to the second."""
    scale = (first @ second) / (first @ first).clamp_min(1e-300)
    return float((scale * first - second).norm() / second.norm())
