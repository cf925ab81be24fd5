"""Curves of a run: losses, metrics, weights, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Rows = Sequence[dict[str, float]]

# Okabe and Ito's colours: distinct for colour-blind readers too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def draw_curves(rows: Rows, folder: Path) -> list[Path]:
    """Draws what a run recorded.

    Args:
        rows: Dicts with `step` and scalars by name, as `History` keeps them.
        folder: Where `losses.png`, `metrics.png`, `weights.png`, `cosines.png` and `gates.png` go;
            a picture without data is not made.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    tasks = [name.removeprefix("train/loss/") for name in names if name.startswith("train/loss/")]
    written = []
    for file, draw in (
        ("losses.png", _losses),
        ("metrics.png", _metrics),
        ("weights.png", _weights),
        ("cosines.png", _cosines),
        ("gates.png", _gates),
    ):
        figure = draw(rows, names, tasks)
        if figure is not None:
            path = folder / file
            figure.savefig(path, dpi=110)
            plt.close(figure)
            written.append(path)
    return written


def _losses(rows: Rows, names: Sequence[str], tasks: Sequence[str]) -> plt.Figure | None:
    return _panels(
        rows,
        {
            f"loss: {task}": [
                (f"train/loss/{task}", "training batches"),
                (f"val/loss/{task}", "validation"),
            ]
            for task in tasks
        },
        names,
    )


def _metrics(rows: Rows, names: Sequence[str], tasks: Sequence[str]) -> plt.Figure | None:
    scores = [n for n in names if n.startswith("val/") and not n.startswith("val/loss/")]
    ordered = [n for task in tasks for n in scores if n.endswith(f"/{task}")]
    panels = {}
    for name in ordered:
        _, metric, task = name.split("/")
        panels[f"{task}: {metric}"] = [(name, "validation")]
    return _panels(rows, panels, names)


def _weights(rows: Rows, names: Sequence[str], tasks: Sequence[str]) -> plt.Figure | None:
    lines = [(f"balancer/weight/{task}", task) for task in tasks]
    return _panels(rows, {"weight in the shared gradient": lines}, names)


def _cosines(rows: Rows, names: Sequence[str], tasks: Sequence[str]) -> plt.Figure | None:
    del tasks
    lines = [(n, n.removeprefix("cosine/")) for n in names if n.startswith("cosine/")]
    figure = _panels(rows, {"cosine of the tasks' gradients": lines}, names)
    if figure is not None:
        axes = figure.axes[0]
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set_ylim(-1.05, 1.05)
    return figure


def _gates(rows: Rows, names: Sequence[str], tasks: Sequence[str]) -> plt.Figure | None:
    del tasks
    lines = [(n, n.removeprefix("gate/")) for n in names if n.startswith("gate/")]
    figure = _panels(rows, {"share of the second expert": lines}, names)
    if figure is not None:
        figure.axes[0].set_ylim(-0.02, 1.02)
    return figure


def _panels(
    rows: Rows, panels: dict[str, list[tuple[str, str]]], names: Sequence[str]
) -> plt.Figure | None:
    """One small plot a panel, each with its lines."""
    known = set(names)
    panels = {
        title: [line for line in lines if line[0] in known] for title, lines in panels.items()
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return None
    columns = min(3, len(panels))
    count = -(-len(panels) // columns)
    width = 4.2 if len(panels) > 1 else 7
    figure, grid = plt.subplots(
        count, columns, figsize=(width * columns, 3.2 * count), squeeze=False, layout="constrained"
    )
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        for (name, label), colour in zip(lines, _colours(len(lines)), strict=True):
            _line(axes, rows, name, label, colour)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(lines) <= len(COLOURS):
            axes.legend(fontsize=8)
        else:
            axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    return figure


def _colours(count: int) -> Sequence[Any]:
    """Distinct ones, or for more lines a scale from the first to the last."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    return list(mpl.colormaps["viridis"]([i / (count - 1) for i in range(count)]))


def _line(axes: Axes, rows: Rows, name: str, label: str, colour: Any) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = zip(*points, strict=True)
    marker = "o" if len(points) < 30 else None
    axes.plot(steps, values, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)
