"""The pictures of the page as PNG files, for papers and slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from mtl.report.curves import COLOURS as _ALL_COLOURS
from mtl.report.sweep.analysis import Analysis
from mtl.report.sweep.comparison import Method, Metric
from mtl.report.sweep.series import Band
from mtl.report.sweep.statistics import Interval

_COLOURS = [colour for colour in _ALL_COLOURS if colour != "#000000"]  # of the reference
_DASHES = ["-", "--", ":", "-."]
_MARKERS = ["o", "s", "D", "^", "X"]
_SHOWN = 8
_BARS = 40


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Draws what there are data for.

    Args:
        analysis: What to show; of many methods, lines are drawn for the 8 of the best mean rank
            and the reference, bars for the 40 of the best gain.
        folder: Where `deltas.png`, `difference.png`, `profile.png`, `speed.png`, `pareto.png`,
            `curves.png`, `weights.png` and `cosines.png` go.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    pictures: dict[str, Callable[[Analysis], plt.Figure | None]] = {
        "deltas": _deltas,
        "difference": _difference,
        "profile": _profile,
        "speed": _speed,
        "pareto": _pareto,
        "curves": _curves,
        "weights": _weights,
        "cosines": _cosines,
    }
    for name, picture in pictures.items():
        figure = picture(analysis)
        if figure is not None:
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=120)
            plt.close(figure)
    return written


def _methods(analysis: Analysis) -> list[Method]:
    """Those that lines are drawn for."""
    found = analysis.comparison
    ranked = sorted(found.contenders, key=lambda method: method.rank or 0)
    best = {id(method) for method in [*ranked[:_SHOWN], found.reference]}
    return [method for method in found.contenders if id(method) in best]


def _style(method: Method, analysis: Analysis) -> tuple[str, str, str]:
    """Colour, dash and marker: the same in every picture."""
    found = analysis.comparison
    if method.single:
        return "0.45", "--", "*"
    if method is found.reference:
        return "black", "-", "o"
    others = [m.label for m in found.methods if not m.single and m is not found.reference]
    turn, index = divmod(others.index(method.label), len(_COLOURS))
    return _COLOURS[index], _DASHES[turn % len(_DASHES)], _MARKERS[turn % len(_MARKERS)]


def _main(analysis: Analysis) -> str | None:
    return next((name for name in ("delta_p", "gain") if name in analysis.deltas), None)


def _deltas(analysis: Analysis) -> plt.Figure | None:
    name = _main(analysis)
    if name is None:
        return None
    bars = [
        (method, *analysis.deltas[name][method.label])
        for method in analysis.comparison.methods
        if analysis.deltas[name].get(method.label, ([],))[0]
    ]
    return _bars(bars, f"{name} (%), higher is better; mean, 95% interval, seeds", analysis)


def _difference(analysis: Analysis) -> plt.Figure | None:
    bars = [
        (v.method, list(v.differences.values()), v.interval)
        for v in analysis.verdicts
        if v.differences
    ]
    reference = analysis.verdicts[0].reference if analysis.verdicts else ""
    return _bars(bars, f"difference to {reference}, percentage points; 95% interval", analysis)


def _bars(
    bars: Sequence[tuple[Method, list[float], Interval | None]], title: str, analysis: Analysis
) -> plt.Figure | None:
    if not bars:
        return None
    bars = sorted(bars, key=lambda bar: fmean(bar[1]))[-_BARS:]
    height = 1.2 + 0.3 * len(bars)
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    for row, (method, seeds, interval) in enumerate(bars):
        mean = fmean(seeds)
        low, high = interval or (mean, mean)
        axes.barh(row, mean, color=_style(method, analysis)[0], alpha=0.75)
        axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color="black", capsize=3)
        axes.plot(seeds, [row] * len(seeds), "o", color="white", markeredgecolor="black", ms=4)
    axes.set_yticks(range(len(bars)), [method.label for method, *_ in bars])
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_xlabel(title)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _profile(analysis: Analysis) -> plt.Figure | None:
    found = analysis.comparison
    metrics = [m for m in found.directed if any(_gain(analysis, x, m) for x in found.contenders)]
    if not metrics:
        return None
    figure, axes = plt.subplots(figsize=(max(7, 1.1 * len(metrics)), 4.5), layout="constrained")
    for method in _methods(analysis):
        colour, dash, marker = _style(method, analysis)
        gains = [_gain(analysis, method, metric) for metric in metrics]
        axes.plot(gains, dash, color=colour, marker=marker, label=method.label)
    axes.set_xticks(range(len(metrics)), [f"{m.task}\n{m.name}" for m in metrics], fontsize=8)
    axes.set_ylabel(f"gain over {analysis.base} (%)")
    return _finish(figure, axes, zero=True)


def _gain(analysis: Analysis, method: Method, metric: Metric) -> float:
    gain = analysis.comparison.gain(method.means, metric)
    return np.nan if gain is None else gain


def _speed(analysis: Analysis) -> plt.Figure | None:
    name = _main(analysis)
    known = [m for m in analysis.comparison.contenders if m.time is not None]
    if name is None or not known:
        return None
    named = _methods(analysis)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for method in known:
        seeds, interval = analysis.deltas[name].get(method.label, ([], None))
        if seeds and method.time is not None:
            mean = fmean(seeds)
            low, high = interval or (mean, mean)
            colour, _, marker = _style(method, analysis)
            whisker = [[mean - low], [high - mean]]
            axes.errorbar(method.time, mean, whisker, color=colour, marker=marker, linestyle="")
            if method in named:
                axes.annotate(method.label, (method.time, mean), (5, 4), textcoords="offset points")
    axes.margins(x=0.2)
    axes.set_xlabel(f"time a step, relative to {analysis.comparison.reference.label}")  # type: ignore[union-attr]
    axes.set_ylabel(f"{name} (%)")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.grid(alpha=0.3)
    return figure


def _pareto(analysis: Analysis) -> plt.Figure | None:
    pairs = analysis.pairs()
    if not pairs or not analysis.comparison.contenders:
        return None
    first, second = pairs[0]
    volumes = analysis.volumes(first, second)
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for method in _methods(analysis):
        colour, _, marker = _style(method, analysis)
        own = [v for v in method.values.values() if {first, second} <= v.keys()]
        if own:
            x, y = [v[first] for v in own], [v[second] for v in own]
            label = method.label
            label += f" ({volumes[label]:.3f})" if label in volumes else ""
            axes.plot(x, y, marker, color=colour, alpha=0.4, markersize=4)
            axes.plot(fmean(x), fmean(y), marker, color=colour, markersize=9, label=label)
    arrows = ["↑" if analysis.comparison.directed[m] else "↓" for m in (first, second)]
    axes.set_xlabel(f"{first} {arrows[0]}")
    axes.set_ylabel(f"{second} {arrows[1]}")
    return _finish(figure, axes, title="hypervolume")


def _curves(analysis: Analysis) -> plt.Figure | None:
    names = {n: None for own in analysis.series.values() for n in own if n.startswith("val/")}
    scores = [n for n in names if not n.startswith("val/loss/")][:9]
    methods = [m for m in analysis.comparison.methods if m.single] + _methods(analysis)
    lines = {
        name: [
            (analysis.series[m.label][name], m.label, *_style(m, analysis)[:2])
            for m in methods
            if name in analysis.series.get(m.label, {})
        ]
        for name in scores
    }
    return _panels(lines)


def _weights(analysis: Analysis) -> plt.Figure | None:
    prefix = "balancer/weight/"
    lines = {}
    for method in _methods(analysis):
        own = analysis.series.get(method.label, {})
        names = [name for name in own if name.startswith(prefix)]
        if names:
            lines[method.label] = [
                (own[n], n.removeprefix(prefix), _COLOURS[i % len(_COLOURS)], "-")
                for i, n in enumerate(names[: 2 * len(_COLOURS)])
            ]
    return _panels(lines)


def _panels(panels: dict[str, list[tuple[Band, str, str, str]]]) -> plt.Figure | None:
    if not panels:
        return None
    columns = min(3, len(panels))
    count = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        count, columns, figsize=(4.4 * columns, 3.1 * count), squeeze=False, layout="constrained"
    )
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        for band, label, colour, dash in lines:
            axes.plot(band.steps, band.mean, dash, color=colour, label=label, linewidth=1.4)
            low, high = band.mean - band.deviation, band.mean + band.deviation
            axes.fill_between(band.steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    entries = {label: handle for axes in grid.flat for handle, label in _legend(axes)}
    handles, labels = list(entries.values()), list(entries)
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    return figure


def _legend(axes: Axes) -> list[tuple[Artist, str]]:
    return list(zip(*axes.get_legend_handles_labels(), strict=True))


def _cosines(analysis: Analysis) -> plt.Figure | None:
    """Mean cosine of every pair of tasks: over time for the reference, or the first that has it."""
    found = analysis.comparison
    ordered = [m for m in [found.reference, *found.contenders] if m is not None]
    for method in ordered:
        own = analysis.series.get(method.label, {})
        names = [n for n in own if n.startswith("cosine/")][:60]
        if names:
            break
    else:
        return None
    steps = max((own[name].steps for name in names), key=len)
    rows = [np.interp(steps, own[name].steps, own[name].mean) for name in names]
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.28 * len(names)), layout="constrained")
    mesh = axes.pcolormesh(steps, range(len(names)), rows, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_yticks(range(len(names)), [n.removeprefix("cosine/") for n in names], fontsize=8)
    axes.set_xlabel("step")
    axes.set_title(f"cosine of the tasks' gradients, {method.label}", fontsize=10)
    figure.colorbar(mesh)
    return figure


def _finish(
    figure: plt.Figure, axes: Axes, *, zero: bool = False, title: str | None = None
) -> plt.Figure:
    if zero:
        axes.axhline(0, color="0.4", linewidth=0.8)
    axes.grid(alpha=0.3)
    axes.legend(title=title, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
