"""Rows in the form of the Hugging Face hub: parquet shards, saved folders, the local cache."""

from __future__ import annotations

import bisect
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dense.source import Array, Source
from mtl.errors import ConfigError, DataError

SPLITS = ("train", "val")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")


class Rows(Source):
    """Rows of a `datasets.Dataset`, memory-mapped.

    Args:
        rows: With the columns `names`, channels first, each in nested lists or an array feature.
        names: Columns that make up a sample.
        shards: File -> number of its rows, in order; for messages.
        num_classes: See `Source`.
    """

    def __init__(
        self, rows: Any, names: Sequence[str], shards: Mapping[Path, int], num_classes: int
    ) -> None:
        super().__init__(num_classes)
        self._rows = rows.select_columns(list(names)).with_format("numpy")
        self._shards = list(shards)
        self._starts = [0, *itertools.accumulate(shards.values())]

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, index: int, name: str) -> str:
        """The shard and the row in it."""
        shard = bisect.bisect_right(self._starts, index) - 1
        return f"{self._shards[shard]}, row {index - self._starts[shard]}, column {name}"

    def load(self, index: int) -> dict[str, Array]:
        """Reads one row."""
        row = self._rows[index]
        try:
            return {name: np.asarray(values) for name, values in row.items()}
        except ValueError as error:  # nested lists of different lengths
            raise DataError(f"{self.place(index, 'any')}: expected arrays, got {error}.") from error


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """Parquet files `train-*.parquet` and `val-*.parquet` of a folder, by split; {} if none.

    Raises:
        DataError: A split or a shard is missing.
    """
    found = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in SPLITS}
    if not any(found.values()):
        return {}
    for split, paths in found.items():
        numbers = [m for m in map(_SHARD.search, map(str, paths)) if m]
        there, total = {int(m[1]) for m in numbers}, {int(m[2]) for m in numbers}
        expected = set(range(max(total, default=0)))
        if not paths or len(total) > 1 or there != expected:
            lacking = ", ".join(str(n) for n in sorted(expected - there)) or "all"
            raise DataError(
                f"{folder}: expected all shards {split}-NNNNN-of-NNNNN.parquet, got "
                f"{[p.name for p in paths]}; missing: {lacking}. Get them again."
            )
    return found


def read_shards(
    shards: Mapping[str, Sequence[Path]],
    names: Sequence[str],
    num_classes: int,
    cache_dir: Path | None = None,
) -> dict[str, Source]:
    """Opens parquet files, by split; the first time they are decoded into a cache.

    Args:
        shards: Split -> files.
        names: Columns of a sample.
        num_classes: See `Source`.
        cache_dir: Where decoded rows are kept. Default: Hugging Face's cache.

    Raises:
        DataError: A file is truncated, damaged, or lacks a column.
        ConfigError: The package datasets is not installed.
    """
    library = require_datasets()
    import pyarrow

    sources: dict[str, Source] = {}
    for split, paths in shards.items():
        counts = {path: _rows_of(path, names) for path in paths}
        try:
            rows = library.Dataset.from_parquet(
                [str(path) for path in paths],
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
        except (library.exceptions.DatasetGenerationError, pyarrow.ArrowInvalid, OSError) as error:
            reason = error.__cause__ or error
            raise DataError(
                f"{', '.join(map(str, paths))}: one of these cannot be decoded: {reason}. Get it "
                "again."
            ) from error
        sources[split] = Rows(rows, names, counts, num_classes)
    return sources


def read_saved(folder: Path, names: Sequence[str], num_classes: int) -> dict[str, Source]:
    """Opens what `DatasetDict.save_to_disk` wrote, by split.

    Raises:
        DataError: It is damaged, or lacks a split or a column.
        ConfigError: The package datasets is not installed.
    """
    library = require_datasets()
    import pyarrow

    try:
        saved = library.load_from_disk(str(folder))
    except (OSError, ValueError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{folder}: expected a saved data set, got {error}.") from error
    return _checked(saved, folder, names, num_classes)


def download(
    name: str, names: Sequence[str], num_classes: int, cache_dir: Path | None = None
) -> dict[str, Source]:
    """Loads a data set of the hub, downloading what the cache lacks.

    Args:
        name: `owner/name` on the hub.
        names: Columns of a sample.
        num_classes: See `Source`.
        cache_dir: As in `read_shards`.

    Raises:
        DataError: The hub cannot be reached, or has something else under that name.
        ConfigError: The package datasets is not installed.
    """
    library = require_datasets()
    try:
        loaded = library.load_dataset(name, cache_dir=None if cache_dir is None else str(cache_dir))
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name} cannot be downloaded: {error}. Without network, get it elsewhere "
            f"(huggingface-cli download {name} --repo-type dataset --local-dir DIR) and name the "
            "folder by dataset.data_dir=DIR."
        ) from error
    return _checked(loaded, Path(name), names, num_classes)


def cached_snapshot(name: str) -> Path | None:
    """Folder of the newest snapshot of a data set in the local Hugging Face cache.

    Args:
        name: `owner/name` on the hub.
    """
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface"
    )
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    snapshots = hub / f"datasets--{name.replace('/', '--')}" / "snapshots"
    found = [path for path in snapshots.glob("*") if any(path.rglob("*.parquet"))]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def is_complete(snapshot: Path) -> bool:
    """Whether a snapshot has all shards of all splits, as far as their names say.

    Args:
        snapshot: From `cached_snapshot`.
    """
    try:
        return any(find_shards(folder) for folder in (snapshot, snapshot / "data"))
    except DataError:
        return False


def require_datasets() -> Any:
    """The package datasets.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "Reading parquet needs the package datasets. Install it: "
            'pip install -e ".[hf]". The .npy folders of MTAN need nothing.'
        ) from error
    return datasets


def _rows_of(path: Path, names: Sequence[str]) -> int:
    """Number of rows of a parquet file, from its last bytes."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: expected a parquet file, got {error} It is damaged or truncated: get it "
            "again."
        ) from error
    _check_columns(str(path), file.schema_arrow.names, names)
    return file.metadata.num_rows


def _check_columns(place: str, there: Sequence[str], names: Sequence[str]) -> None:
    lacking = [name for name in names if name not in there]
    if lacking:
        raise DataError(
            f"{place}: expected the columns {', '.join(names)}, got {', '.join(there)}; missing: "
            f"{', '.join(lacking)}."
        )


def _checked(
    saved: Mapping[str, Any], place: Path, names: Sequence[str], num_classes: int
) -> dict[str, Source]:
    lacking = [split for split in SPLITS if split not in saved]
    if lacking:
        raise DataError(
            f"{place}: expected the splits {', '.join(SPLITS)}, got {', '.join(map(str, saved))}."
        )
    for split in SPLITS:
        _check_columns(f"{place}, split {split}", saved[split].column_names, names)
    return {
        split: Rows(saved[split], names, {place / split: len(saved[split])}, num_classes)
        for split in SPLITS
    }
