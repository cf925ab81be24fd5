"""The result of one run, as it is kept in `metrics.json`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtl.errors import DataError

FILE = "metrics.json"
_VERSION = 1

# What may differ between runs that are compared with each other.
_FREE = {"balancer", "seed", "tasks", "num_tasks", "logger", "callbacks", "ckpt_path", "train"}
_FREE |= {"baseline", "output_dir"}
_FREE_TRAINER = {"accelerator", "enable_progress_bar", "profiler", "log_every_n_steps"}
_FREE_DATASET = {"cache_dir", "data_dir", "seed"}


@dataclass
class Results:
    """What a run achieved.

    Attributes:
        dataset: Name of the data set's configuration.
        balancer: Name of the balancer's configuration.
        seed: Seed of the run.
        protocol: Digest of everything that comparable runs have in common (data, model,
            optimizer, epochs), but not of the balancer, the seed and the choice of tasks.
        metrics: Task -> metric -> value on the test data.
        higher_is_better: Task -> metric -> direction.
        info: Steps, skipped steps, seconds, versions.
        delta_m: Mean relative drop against the baseline in percent, lower is better.
        delta_p: Relative gain, mean within each task first, in percent, higher is better.
        baseline: Where the single-task values came from.
    """

    dataset: str
    balancer: str
    seed: int
    protocol: str
    metrics: dict[str, dict[str, float]]
    higher_is_better: dict[str, dict[str, bool]]
    info: dict[str, Any] = field(default_factory=dict)
    delta_m: float | None = None
    delta_p: float | None = None
    baseline: str | None = None

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


def protocol_of(config: Mapping[str, Any]) -> str:
    """Digest of what comparable runs have in common.

    Args:
        config: The resolved configuration as plain data.
    """
    kept = {key: value for key, value in config.items() if key not in _FREE}
    for part, free in (("trainer", _FREE_TRAINER), ("dataset", _FREE_DATASET)):
        kept[part] = {key: v for key, v in (config.get(part) or {}).items() if key not in free}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
