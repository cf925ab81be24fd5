"""Finds and reads the runs below some folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mtl.errors import DataError
from mtl.report.results import FAILURE, FILE, Results

_HYDRA = ".hydra"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Note:
    """Something that a reader must know about what was, and was not, counted.

    Attributes:
        kind: What it is about, in a word or two: `failed`, `missing seeds`.
        text: What happened, and what was done about it.
        details: Longer text, such as a traceback.
    """

    kind: str
    text: str
    details: str = ""


@dataclass(frozen=True)
class Place:
    """The folder of a run.

    Attributes:
        folder: Where it is.
        name: The same, relative to the folder that was asked for.
    """

    folder: Path
    name: str

    @cached_property
    def options(self) -> dict[str, str]:
        """The options that the run was started with, by key; `~key` has the value `null`."""
        overrides = _yaml(self.folder / _HYDRA / "overrides.yaml") or []
        pairs = (str(override).lstrip("+~").partition("=") for override in overrides)
        return {key: value or "null" for key, _, value in pairs}

    @property
    def order(self) -> list[int | str]:
        """Sorts jobs by number and sweeps by time: 2_... before 10_..."""
        parts = re.split(r"(\d+)", str(self.folder))
        return [int(part) if index % 2 else part for index, part in enumerate(parts)]


@dataclass(frozen=True)
class Run(Place):
    """A finished run."""

    results: Results


@dataclass(frozen=True)
class Failure(Place):
    """A run without results: it failed, or has not ended.

    Attributes:
        error: Its traceback; empty if it left none.
    """

    error: str = ""

    @property
    def reason(self) -> str:
        """The last line of the error."""
        lines = self.error.strip().splitlines()
        return lines[-1].strip() if lines else "unfinished: neither metrics.json nor error.txt"

    @cached_property
    def balancer(self) -> str:
        """Name of the balancer's configuration."""
        hydra = _yaml(self.folder / _HYDRA / "hydra.yaml") or {}
        for part in ("hydra", "runtime", "choices"):
            hydra = hydra.get(part) or {}
        return str(self.options.get("balancer") or hydra.get("balancer") or "unknown")


@dataclass
class Runs:
    """All that was found.

    Attributes:
        finished: Runs with results, in the order in which they were started.
        failed: Runs without.
        notes: What was left out, and why.
    """

    finished: list[Run] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def read_runs(folders: Sequence[Path]) -> Runs:
    """Reads every run below the folders, each folder once.

    Raises:
        DataError: A folder does not exist.
    """
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(f"Expected folders with runs. Not there: {', '.join(missing)}.")
    runs = Runs()
    for place in sorted(_places(folders), key=lambda place: place.order):
        _read(place, runs)
    return runs


def _places(folders: Iterable[Path]) -> Iterator[Place]:
    seen = set()
    for top in folders:
        for parent, below, files in os.walk(top, followlinks=True):
            folder = Path(parent)
            is_run = _HYDRA in below or FILE in files or FAILURE in files
            below[:] = [] if is_run and folder != top else [b for b in below if b != _HYDRA]
            if is_run and folder.resolve() not in seen:
                seen.add(folder.resolve())
                name = top.name if folder == top else str(folder.relative_to(top))
                yield Place(folder, name)


def _read(place: Place, runs: Runs) -> None:
    failure = place.folder / FAILURE
    error = failure.read_text(errors="replace") if failure.is_file() else ""
    if not (place.folder / FILE).is_file():
        failed = Failure(place.folder, place.name, error)
        kind = "failed" if failed.error else "unfinished"
        left_out = f"{place.name}: {failed.reason.removesuffix('.')}. It is in no number."
        runs.failed.append(failed)
        runs.notes.append(Note(kind, left_out, error))
        return
    try:
        results = Results.read(place.folder / FILE)
    except DataError as problem:
        runs.failed.append(Failure(place.folder, place.name, str(problem)))
        runs.notes.append(Note("unreadable", f"{problem} The run is in no number."))
        return
    runs.finished.append(Run(place.folder, place.name, results))
    if error:
        text = f"{place.name} wrote its results and then ended with an error. Its values count."
        runs.notes.append(Note("error at the end", text, error))


def _yaml(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Loader) if path.is_file() else None
