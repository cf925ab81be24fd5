"""Writes the folders of an invented sweep, to time the report and to test it.

python -m benchmarks.speed.sweeps FOLDER --methods 25 --seeds 20 --epochs 200
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.report import Results

TASKS = {
    "segmentation": {"miou": (True, 0.5), "pixel_accuracy": (True, 0.8)},
    "depth": {"absolute_error": (False, 0.45), "relative_error": (False, 0.2)},
    "normal": {"mean_angle": (False, 20.0), "median_angle": (False, 12.0)},
}
"""Task -> metric -> whether higher is better, single-task value."""

Tasks = Mapping[str, Mapping[str, tuple[bool, float]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10, help="rows of training an epoch")
    options = parser.parse_args(arguments)
    gains = np.random.default_rng(0).normal(0, 0.08, options.methods)
    for method, gain in enumerate(gains):
        name = "stl" if method == 0 else "ew" if method == 1 else f"method_{method}"
        for seed in range(options.seeds):
            folder = options.folder / f"{method * options.seeds + seed}_{name},seed={seed}"
            write_run(folder, name, seed, gain=0.0 if name == "stl" else float(gain))
            write_history(folder, seed, gain=float(gain), epochs=options.epochs, rows=options.rows)


def write_run(
    folder: Path,
    balancer: str,
    seed: int,
    *,
    gain: float = 0.0,
    noise: float = 0.01,
    tasks: Tasks = TASKS,
    options: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """Writes what a run leaves, without curves.

    Args:
        folder: The run's folder.
        balancer: Its balancer; with `stl` nothing is shared.
        seed: Its seed, also of the noise.
        gain: By which share its values are better than the single tasks'.
        noise: Standard deviation of that share.
        tasks: Its tasks.
        options: Further options that it was started with.
        changes: Attributes of `Results` that are to be different.
    """
    random = np.random.default_rng([seed, *balancer.encode()])
    fields = {
        "dataset": "rooms",
        "balancer": balancer,
        "seed": seed,
        "protocol": "0123456789ab",
        "shared": balancer != "stl",
        "metrics": {
            task: {
                **{
                    name: value * (1 + (gain + random.normal(0, noise)) * (1 if higher else -1))
                    for name, (higher, value) in metrics.items()
                },
                "loss": 1.0,
            }
            for task, metrics in tasks.items()
        },
        "higher_is_better": {
            task: {name: higher for name, (higher, _) in metrics.items()}
            for task, metrics in tasks.items()
        },
        "info": {"seconds": 20 + 40 * abs(gain), "steps": 1000, "peak_memory": 600_000_000},
    }
    write_options(folder, [f"balancer={balancer}", f"seed={seed}", "dataset=rooms", *options])
    Results(**{**fields, **changes}).write(folder)
    return folder


def write_options(folder: Path, options: Sequence[str]) -> None:
    """Writes the options of a run, as Hydra does."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    text = "".join(f"- {option}\n" for option in options)
    (folder / ".hydra" / "overrides.yaml").write_text(text)


def write_history(
    folder: Path,
    seed: int,
    *,
    gain: float = 0.0,
    epochs: int = 20,
    rows: int = 3,
    tasks: Tasks = TASKS,
) -> None:
    """Writes a `history.csv`: losses, weights and cosines in training, metrics after each epoch."""
    random = np.random.default_rng([seed, round(1e6 * abs(gain))])
    names = list(tasks)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    training = [f"{kind}/{t}" for t in names for kind in ("train/loss", "balancer/weight")]
    cosines = [f"cosine/{a}~{b}" for a, b in pairs]
    scores = [(f"val/{m}/{t}", *tasks[t][m]) for t in names for m in (*tasks[t],)]
    header = ["step", "epoch", *training, *cosines, *(name for name, *_ in scores)]
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for epoch in range(epochs):
            for row in range(rows):
                step = (epoch * rows + row + 1) * 10
                falling = np.exp(-step / (4 * epochs * rows)) * np.linspace(
                    0.5, 1 - gain, len(training)
                )
                values = falling + random.normal(0, 0.05, len(training))
                angles = np.linspace(-0.4, 0.6, len(pairs)) + random.normal(0, 0.2, len(pairs))
                empty = [""] * len(scores)
                writer.writerow([step, epoch, *values, *np.clip(angles, -1, 1), *empty])
            done = 1 - np.exp(-4 * (epoch + 1) / epochs)
            reached = [
                value
                * (1 + gain if higher else 1 - gain)
                * (done if higher else 2 - done)
                * (1 + random.normal(0, 0.01))
                for _, higher, value in scores
            ]
            gap = [""] * (len(training) + len(pairs))
            writer.writerow([(epoch + 1) * rows * 10, epoch, *gap, *reached])


if __name__ == "__main__":
    main()
