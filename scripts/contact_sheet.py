"""Draws a contact sheet of ray-cast rooms: pictures, labels and their colours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scenes import load
from benchmarks.scenes.sheet import contact_sheet
from mtl.errors import MTLError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="number of rooms")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(64, 64), metavar=("HEIGHT", "WIDTH"), help="in pixels"
    )
    parser.add_argument("--seed", type=int, default=0, help="data set")
    parser.add_argument("--zoom", type=int, default=2, help="enlargement factor")
    parser.add_argument("--out", type=Path, required=True, help="picture file, for example a PNG")
    options = parser.parse_args(arguments)
    height, width = options.size
    try:
        data = load(options.count, seed=options.seed, height=height, width=width)
        contact_sheet(data, options.count, options.zoom).save(options.out)
    except (MTLError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
