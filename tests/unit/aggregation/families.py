"""Gradients that weightings are tested on, and what tests say about directions."""

from collections.abc import Callable
from typing import Any

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


def gauss(count, seed):
    return rows_of("gauss", count, seed, WIDTH)


def scaled(exponent):
    """Norms drawn from so many powers of ten."""

    def build(count, seed):
        draw = torch.Generator().manual_seed(seed)
        powers = exponent * torch.rand(count, 1, generator=draw, dtype=torch.float64)
        return 10**powers * gauss(count, seed)

    return build


def multiple(*factors):
    """The first gradient is a multiple of the second."""

    def build(count, seed):
        rows = gauss(count, seed)
        rows[0] = factors[seed % len(factors)] * rows[1]
        return rows

    return build


def pairs(count, seed):
    """Each gradient meets one other, and is orthogonal to the rest."""
    planes = torch.arange(count)[:, None] // 2 == torch.arange(WIDTH) // 2
    return gauss(count, seed) * planes


WIDTH = 12
TWO, MANY = st.just(2), st.integers(3, 6)
# The number of tasks, and gradients from that and a seed.
KINDS: dict[str, tuple[Any, Callable[[int, int], torch.Tensor]]] = {
    "two": (TWO, scaled(2)),
    "gauss": (MANY, gauss),
    "scaled 10": (MANY, scaled(1)),
    "scaled 100": (MANY, scaled(2)),
    "allies": (MANY, lambda count, seed: gauss(count, seed).abs()),
    "pairs": (MANY, pairs),
    "duplicates": (MANY, multiple(1, 0.5, 3)),
    "few columns": (MANY, lambda count, seed: rows_of("gauss", count, seed, (count + 1) // 2)),
    "zero row": (MANY, multiple(0)),
    "opposite": (MANY, multiple(-1, -2, -3)),
    "two opposite": (TWO, multiple(-1, -2, -3)),
    "identical": (MANY, lambda count, seed: gauss(1, seed).repeat(count, 1)),
}


@st.composite
def drawn(draw, kinds=tuple(KINDS)):
    """Gradients of one of these kinds."""
    counts, build = KINDS[draw(st.sampled_from(kinds))]
    return build(draw(counts), draw(st.integers(0, 10**6)))


def direction(method, rows):
    """Of a weighting, without its state being shared between calls."""
    return method(rows @ rows.T) @ rows


def angle(first, second):
    """Distance of two vectors after the best scaling of the first, relative to the second."""
    scale = (first @ second) / (first @ first).clamp_min(1e-300)
    return float((scale * first - second).norm() / second.norm())
