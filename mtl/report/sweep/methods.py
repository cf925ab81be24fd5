"""What runs are called: the balancer, and the options in which its runs differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from mtl.report.sweep.runs import Failure, Place, Run

SINGLE = "single task"
_OWN = re.compile(r"(balancer|sharing)[./@]|(sharing|experiment)$")
_FREE = re.compile(r"(balancer|sharing|experiment|seed|tasks)([./@]|$)")
_HARMLESS = {"baseline", "callbacks", "ckpt_path", "logger", "output_dir", "resume"}


class Labels:
    """Names of methods, given all runs that stand in one table.

    Args:
        runs: Finished and failed runs.
    """

    def __init__(self, runs: Iterable[Place]) -> None:
        chosen = defaultdict(list)
        for run in runs:
            if not _single(run):
                chosen[_balancer(run)].append(_own(run))
        self._differing = {
            balancer: [
                key
                for key in dict.fromkeys(key for options in all_ for key in options)
                if len({options.get(key) for options in all_}) > 1
            ]
            for balancer, all_ in chosen.items()
        }

    def __call__(self, run: Place) -> str:
        """The name of the method of a run."""
        if _single(run):
            return SINGLE
        own = _own(run)
        shown = [key for key in self._differing.get(_balancer(run), ()) if key in own]
        return " ".join([_balancer(run), *(f"{_short(key)}={own[key]}" for key in shown)])


def context(run: Place) -> frozenset[tuple[str, str]]:
    """The options that say what was trained on and how, and not with which method or seed."""
    return frozenset(
        (key, value)
        for key, value in run.options.items()
        if not _FREE.match(key) and key.split(".")[0].split("/")[0] not in _HARMLESS
    )


def seed(run: Place) -> int:
    """The seed of a run, also of one without results."""
    if isinstance(run, Run):
        return run.results.seed
    text = run.options.get("seed", "0")
    return int(text) if text.lstrip("-").isdigit() else 0


def tasks(run: Place) -> list[str] | None:
    """The tasks that a run was asked to train; `None` for all."""
    if isinstance(run, Run):
        return list(run.results.metrics)
    text = run.options.get("tasks", "null")
    return None if text == "null" else [name.strip() for name in text.strip("[]").split(",")]


def _single(run: Place) -> bool:
    if isinstance(run, Run):
        return run.results.single
    return len(tasks(run) or ()) == 1 or run.options.get("sharing") == "separate"


def _balancer(run: Place) -> str:
    if isinstance(run, Run):
        return run.results.balancer
    return run.balancer if isinstance(run, Failure) else "unknown"


def _own(run: Place) -> dict[str, str]:
    return {key: value for key, value in run.options.items() if _OWN.match(key)}


def _short(key: str) -> str:
    return key.removeprefix("balancer.").removeprefix("balancer/")
