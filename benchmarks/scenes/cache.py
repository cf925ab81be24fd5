"""Data sets of rooms: drawn once, then read from a cache file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from benchmarks.scenes.codec import STORED, Arrays, stored_shape
from benchmarks.scenes.failures import config_error
from benchmarks.scenes.generate import Progress, generate
from benchmarks.scenes.render import check_request
from benchmarks.scenes.spec import VERSION

_HEADER = "header"
_COMPRESSION_LEVEL = 1
_SPARE_BYTES = 16 * 2**20
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def load(
    count: int,
    *,
    seed: int,
    height: int = 64,
    width: int = 64,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Arrays:
    """Reads pictures 0 to count − 1 of a data set, drawing them first if they aren't cached.

    A damaged cache file is replaced. A cache that can't be written costs a warning and no data.

    Args:
        count: Number of pictures, 1 or more.
        seed: Data set, 0 or more; use other seeds for validation and test.
        height: Picture height in pixels, a positive multiple of 32.
        width: Picture width in pixels, a positive multiple of 32.
        cache_dir: Folder of the cache file; by default `mtl/scenes` in `$XDG_CACHE_HOME` or
            `~/.cache`.
        workers: Processes that draw; 0 or 1 draws in this process, None decides by the number of
            cores and pictures. With several, a calling script must guard its entry with
            `if __name__ == "__main__":`.
        progress: Called with the number of pictures drawn so far; not called when all are cached.

    Returns:
        Arrays with the keys of `draw` whose first axis is the picture, in compact types: uint8
        image, edge and albedo, int8 segmentation, float16 depth, int16 normal. `decode` turns
        rows into values for a model.

    Raises:
        ConfigError: (a ValueError) A size, the count, the seed or the number of workers is out of
            its range.
        DataError: A worker ended before its work was done.
    """
    check_request(height, width, seed=seed, workers=workers or 0)
    if count < 1:
        raise config_error(f"count: expected 1 or more, got {count}; ask for at least one picture")
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)
    path = folder / cache_name(count, seed, height, width)
    header = {"version": VERSION, "seed": seed, "count": count, "height": height, "width": width}
    arrays = _read_or_warn(path, header)
    if arrays is None:
        arrays = generate(count, seed, height, width, workers, progress)
        _write_or_warn(path, header, arrays)
    return arrays


def cache_name(count: int, seed: int, height: int, width: int) -> str:
    """File name of a data set; it changes with `VERSION`."""
    return f"scenes-v{VERSION}-{seed}-{count}-{height}x{width}.npz"


def default_cache_dir() -> Path:
    """`mtl/scenes` in `$XDG_CACHE_HOME` if that is an absolute path, else in `~/.cache`."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "mtl" / "scenes"


def _read_or_warn(path: Path, header: dict[str, int]) -> Arrays | None:
    """The cached arrays; None if there are none, or with a warning if they are damaged."""
    try:
        return _read(path, header)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _UNREADABLE as error:
        warnings.warn(f"{path}: drawing the pictures again, because {error}", stacklevel=3)
        return None


def _write_or_warn(path: Path, header: dict[str, int], arrays: Arrays) -> None:
    """Caches the arrays, or warns that it can't."""
    try:
        _write(path, header, arrays)
    except OSError as error:
        warnings.warn(
            f"{path}: the pictures are not cached and will be drawn again next time, because "
            f"{error}; free some space or choose another folder with cache_dir",
            stacklevel=3,
        )


def _read(path: Path, header: dict[str, int]) -> Arrays:
    """Reads and checks a cache file.

    Raises:
        ValueError: The file holds something else than its name says.
        Exception: Another one of `_UNREADABLE` if the file is damaged.
    """
    with np.load(path, allow_pickle=False) as stored:
        found = json.loads(str(stored[_HEADER]))
        if found != header:
            raise ValueError(f"its header: expected {header}, got {found}; delete the file")
        arrays = {name: stored[name] for name in STORED}
    for name, (_, dtype) in STORED.items():
        shape = stored_shape(name, header["count"], header["height"], header["width"])
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            raise ValueError(
                f"its {name}: expected {dtype} {shape}, got {arrays[name].dtype} "
                f"{arrays[name].shape}; delete the file"
            )
    return arrays


def _write(path: Path, header: dict[str, int], arrays: Arrays) -> None:
    """Writes a cache file in one step: other processes see no file, the old one or all of it.

    Raises:
        OSError: The folder can't be written or has too little space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(values.nbytes for values in arrays.values()) + _SPARE_BYTES
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(f"free space: expected {needed:,} bytes, got {free:,}")
    handle, name = tempfile.mkstemp(suffix=".tmp", prefix=f"{path.stem}-", dir=path.parent)
    temporary = Path(name)
    try:
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(
                file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL
            ) as archive,
        ):
            for key, values in {_HEADER: np.array(json.dumps(header)), **arrays}.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
