"""The same command again: `resume=true` goes on where an interrupted run or sweep ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

_SWITCH = "resume"
_SWEEP = {"-m", "--multirun"}


def continued(arguments: Sequence[str], *, runs: Path, sweeps: Path) -> Path | None:
    """The folder that a command continues: that of the newest run or sweep of the same options.

    Args:
        arguments: The command line without the program. A folder that is given there
            (`hydra.run.dir` or `hydra.sweep.dir`) is where Hydra goes anyway.
        runs: Where single runs lie, at any depth.
        sweeps: Where sweeps lie.

    Returns:
        The folder, or `None` if there is none, or `resume=true` is not among the arguments.
    """
    options = [a for a in arguments if not a.startswith(("-", "hydra."))]
    asked = [o for o in options if o.lower() == f"{_SWITCH}=true"]
    placed = any(a.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for a in arguments)
    if not asked or placed:
        return None
    known = _sweeps(sweeps) if _SWEEP & set(arguments) else _runs(runs)
    same = [folder for folder, theirs in known if _comparable(theirs) == _comparable(options)]
    return max(same, key=lambda folder: (folder.name, folder.stat().st_mtime), default=None)


def _comparable(options: Sequence[str]) -> list[str]:
    # Hydra notes ~key as ~key=null in the folders of a sweep's jobs.
    return sorted(o.removesuffix("=null") for o in options if not o.startswith(f"{_SWITCH}="))


def _runs(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for file in root.rglob(".hydra/overrides.yaml"):
        yield file.parent.parent, yaml.safe_load(file.read_text()) or []


def _sweeps(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for file in root.glob("*/multirun.yaml"):
        yield file.parent, yaml.safe_load(file.read_text())["hydra"]["overrides"]["task"]
