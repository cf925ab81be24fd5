"""Writes the built-in rooms as files in the form of a public data set.

python scripts/export_scenes.py layout=mtan out=rooms
python scripts/export_scenes.py layout=parquet out=rooms train=64 val=32 size=[96,128]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.dense.export import write_cityscapes, write_mtan, write_parquet
from benchmarks.office.benchmark import Office31, OfficeHome
from benchmarks.office.export import write_lists, write_office
from benchmarks.scenes import load
from mtl.errors import ConfigError, MTLError

LAYOUTS = ("mtan", "parquet", "cityscapes", "office31", "office_home")
SEEDS = {"train": 1, "val": 2}


@dataclass
class Options:
    """What can be given as NAME=VALUE."""

    layout: str = MISSING  # one of LAYOUTS
    out: str = MISSING  # folder, made if it is not there
    train: int = 64  # pictures of the split train (of both splits, for office)
    val: int = 32
    size: list[int] = field(default_factory=lambda: [64, 64])  # height, width; multiples of 32
    dtype: str = "float32"  # of .npy files
    shards: int = 1  # parquet files a split
    lists: bool = False  # office: write LibMTL's lists of a split as well


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    try:
        given = OmegaConf.from_dotlist(arguments)
        words = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        for name in ("layout", "out", "dtype"):  # off is a name, where YAML has a switch
            if name in words:
                given[name] = words[name]
        options: Options = OmegaConf.to_object(  # type: ignore[assignment]
            OmegaConf.merge(OmegaConf.structured(Options), given)
        )
        export(options)
    except (MTLError, OSError, OmegaConfBaseException) as error:
        print(f"error: {error}\n\n{__doc__}\nLayouts: {', '.join(LAYOUTS)}.", file=sys.stderr)
        return 2
    return 0


def export(options: Options) -> None:
    """Draws what the cache lacks, and writes it.

    Raises:
        ConfigError: A value is out of range, or a package is missing.
    """
    if options.layout not in LAYOUTS:
        raise ConfigError(f"layout: expected {', '.join(LAYOUTS)}; got {options.layout!r}.")
    root = Path(options.out)
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"out: expected a new or empty folder, got {root}, which has files.")
    height, width = options.size
    if options.layout.startswith("office"):
        benchmark = Office31 if options.layout == "office31" else OfficeHome
        rooms = load(options.train, seed=SEEDS["train"], height=height, width=width)
        images = benchmark is Office31
        write_office(rooms, root, benchmark.domains, images=images)
        if options.lists:
            write_lists(root, benchmark.domains, images=images)
        return
    for split, count in (("train", options.train), ("val", options.val)):
        rooms = load(count, seed=SEEDS[split], height=height, width=width)
        if options.layout == "parquet":
            write_parquet(rooms, root, split, options.shards)
        elif options.layout == "mtan":
            write_mtan(rooms, root / split, options.dtype)
        else:
            write_cityscapes(rooms, root / split, options.dtype)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
