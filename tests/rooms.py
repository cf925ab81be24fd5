"""Rooms written as the files of public data sets."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from benchmarks.dense.export import write_cityscapes, write_mtan, write_parquet
from benchmarks.office.benchmark import Office31, OfficeHome
from benchmarks.office.export import write_lists, write_office
from benchmarks.scenes.generate import generate

COUNTS = {"train": 9, "val": 5}
SEEDS = {"train": 1, "val": 2}
SIZE = (32, 64)


@lru_cache
def rooms(count: int, seed: int = 1, height: int = SIZE[0], width: int = SIZE[1]):
    """Stored arrays, drawn in this process and not cached."""
    return generate(count, seed, height, width, workers=0)


def write(layout: str, root: Path, counts=COUNTS, dtype: str = "float32", shards: int = 2) -> Path:
    """Writes both splits; gives the root back."""
    for split, count in counts.items():
        drawn = rooms(count, SEEDS[split])
        if layout == "mtan":
            write_mtan(drawn, root / split, dtype)
        elif layout == "cityscapes":
            write_cityscapes(drawn, root / split, dtype)
        else:
            write_parquet(drawn, root, split, shards)
    return root


def write_domains(root: Path, benchmark=Office31, *, lists: bool = False, count: int = 120) -> Path:
    """Writes Office's folders with many rooms of few classes; gives the root back."""
    images = benchmark is Office31
    write_office(rooms(count, 1, 32, 32), root, benchmark.domains, images=images)
    if lists:
        write_lists(root, benchmark.domains, images=images)
    return root


__all__ = ["COUNTS", "SIZE", "OfficeHome", "rooms", "write", "write_domains"]
