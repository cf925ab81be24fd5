"""Looking for data in the user's folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl.errors import DataError


def listing(folder: Path, most: int = 8) -> str:
    """What is in a folder, for a message.

    Args:
        folder: It may be missing.
        most: Names that are spelt out.
    """
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "a file, not a folder"
    try:
        names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    except OSError as error:
        return f"a folder that cannot be listed ({error.strerror})"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "an empty folder") + more


def numbered(folder: Path, suffix: str) -> list[Path]:
    """Files 0, 1, 2 ... of a folder, in that order.

    Args:
        folder: Where `0.npy`, `1.npy` ... lie; hidden files and others are left aside.
        suffix: Of the files, with its dot.

    Raises:
        DataError: There is none, a name is no number, or a number is left out.
    """
    paths = [p for p in folder.glob(f"*{suffix}") if not p.name.startswith(".")]
    wrong = sorted(p.name for p in paths if not (p.stem.isascii() and p.stem.isdigit()))
    if wrong or not paths:
        raise DataError(
            f"{folder}: expected files 0{suffix}, 1{suffix}, ..., got "
            f"{wrong[0] if wrong else listing(folder)}. Remove what does not belong there, or get "
            "the folder again."
        )
    by_number = {int(p.stem): p for p in paths}
    holes = sorted(set(range(max(by_number) + 1)) - set(by_number))
    if holes or len(by_number) < len(paths):
        lacking = ", ".join(f"{n}{suffix}" for n in holes[:5]) or "nothing, but some number twice"
        raise DataError(
            f"{folder}: expected files 0{suffix} to {max(by_number)}{suffix} without holes, got "
            f"{len(paths)} files; missing: {lacking}{' ...' * (len(holes) > 5)}. Get these files "
            "again."
        )
    return [by_number[n] for n in range(len(by_number))]


def not_found(what: str, root: Path, looked_for: str, get: str, instead: str) -> DataError:
    """The error for data that are not where the user says.

    Args:
        what: Name of the data set.
        root: The folder that was searched.
        looked_for: File names.
        get: How to get the data.
        instead: What works without them.
    """
    return DataError(
        f"{what} not found under {root}. Looked for: {looked_for}. Found there: {listing(root)}. "
        f"Get it: {get} No data at hand? {instead}"
    )


def first_with(roots: Sequence[Path], *wanted: str) -> Path | None:
    """The first of the folders that has one of the files or folders `wanted`."""
    return next((root for root in roots if any((root / name).exists() for name in wanted)), None)
