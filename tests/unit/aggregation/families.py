"""Gradients of the kinds that methods meet, and what tests say about directions."""

import torch
from hypothesis import strategies as st

from tests.unit.core.toy import normal

FAMILIES = (
    "gauss", "aligned", "conflict", "spread10", "spread100", "spread1e4", "low rank",
)  # fmt: skip
COUNTS = (2, 3, 10, 40)


def rows_of(family, count, seed=0, width=100):
    """Gradients `[count, width]` of one family, in float64."""
    rows = normal(count, width, seed=seed)
    if family == "aligned":
        rows = 0.05 * rows + normal(width, seed=seed + 1)
    elif family == "conflict":
        rows = rows - 0.9 * rows.mean(0)
    elif family.startswith("spread"):
        exponent = torch.tensor(float(family.removeprefix("spread"))).log10()
        rows = rows * torch.logspace(0, exponent, count)[:, None].double()
    elif family == "low rank":
        rank = max(1, (count + 1) // 2)
        rows = normal(count, rank, seed=seed + 1) @ rows[:rank]
    return rows


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
