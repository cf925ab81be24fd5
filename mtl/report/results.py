"""The result of one run, as it is kept in `metrics.json`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtl.errors import DataError

FILE = "metrics.json"
FAILURE = "error.txt"
"""Where a run that failed leaves its traceback."""
_VERSION = 1

# What comparable runs have in common; nothing else decides the protocol.
_PARTS = ("dataset", "model", "optimizer", "scheduler")
_TRAINER = (
    *("max_epochs", "max_steps", "max_time", "precision", "accumulate_grad_batches"),
    *("gradient_clip_val", "limit_train_batches", "limit_test_batches", "overfit_batches"),
    *("fast_dev_run", "devices", "num_nodes"),
)


@dataclass
class Results:
    """What a run achieved.

    Attributes:
        dataset: Name of the data set's configuration.
        balancer: Name of the balancer's configuration.
        seed: Seed of the run.
        protocol: Digest of everything that comparable runs have in common (data and where they
            depart from the published ones, model, optimizer, epochs), but not of the balancer, the
            seed and the choice of tasks.
        metrics: Task -> metric -> value on the test data.
        validation: The same on the validation data, after the last epoch that was validated.
        higher_is_better: Task -> metric -> direction.
        shared: Whether the tasks shared parameters. If not, or with one task, the values are
            single-task values.
        info: Seconds and steps of the training (of a `resumed` run, the seconds of the rest alone),
            `peak_memory` in bytes, skipped steps.
        delta_m: Mean relative drop against the baseline in percent, lower is better.
        delta_p: Relative gain, mean within each task first, in percent, higher is better.
        baseline: Where the single-task values came from.
        best_epoch: The epoch with the best `delta_p`, its value and its metrics, where validations
            are on the test data and there is a baseline.
    """

    dataset: str
    balancer: str
    seed: int
    protocol: str
    metrics: dict[str, dict[str, float]]
    higher_is_better: dict[str, dict[str, bool]]
    shared: bool = True
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    delta_m: float | None = None
    delta_p: float | None = None
    baseline: str | None = None
    best_epoch: dict[str, Any] | None = None

    @property
    def single(self) -> bool:
        """Whether the values are single-task values."""
        return len(self.metrics) == 1 or not self.shared

    def write(self, folder: Path) -> Path:
        """Writes `metrics.json` into a folder, all of it or nothing."""
        path = folder / FILE
        temporary = path.with_suffix(".tmp")
        text = json.dumps({"version": _VERSION, **asdict(self)}, indent=2)
        temporary.write_text(text + "\n")
        os.replace(temporary, path)
        return path

    @classmethod
    def read(cls, path: Path) -> Results:
        """Reads a `metrics.json`.

        Raises:
            DataError: It is not one, or of another version.
        """
        try:
            content = json.loads(path.read_text())
            version = content.pop("version")
            if version != _VERSION:
                raise ValueError(f"version {version}, expected {_VERSION}")
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not the result of a run: {error}.") from error


def protocol_of(
    config: Mapping[str, Any],
    free: Collection[str] = ("cache_dir",),
    departures: Mapping[str, Any] | None = None,
) -> str:
    """Digest of what comparable runs have in common.

    Args:
        config: The resolved configuration as plain data.
        free: Arguments of the data set that do not change what is measured.
        departures: Where the data that were read are not the published ones, as plain data.
    """
    kept = {part: config.get(part) for part in _PARTS}
    kept["trainer"] = {key: config["trainer"].get(key) for key in _TRAINER}
    data = {k: v for k, v in config["dataset"].items() if k not in free}
    kept["dataset"] = data
    if config.get("corrupt_tasks") is not None:
        kept["corrupt_tasks"] = config["corrupt_tasks"]
    if config.get("selection", "last") != "last":
        kept["selection"] = config["selection"]
    if departures:
        kept["departures"] = departures
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
