"""Real digits from several sources, and two-digit composites with one task per digit."""

from benchmarks.digits.benchmark import MultiDigits, MultiMNIST
from benchmarks.digits.compose import DigitSplit, compose_pairs, split
from benchmarks.digits.sources import (
    Digits,
    find_idx_folder,
    load_idx,
    load_mnist5k,
    load_sklearn_digits,
    read_idx,
)

__all__ = [
    "DigitSplit",
    "Digits",
    "MultiDigits",
    "MultiMNIST",
    "compose_pairs",
    "find_idx_folder",
    "load_idx",
    "load_mnist5k",
    "load_sklearn_digits",
    "read_idx",
    "split",
]
