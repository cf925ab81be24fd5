"""Pictures of gaps and affinities."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw_gaps(
    gaps: Mapping[str, Sequence[Sequence[float]]],
    intervals: Sequence[tuple[int, int]],
    out: Path,
) -> None:
    """Bars with standard deviations, one panel a kind of run.

    Args:
        gaps: Name -> the values of all seeds, an interval each.
        intervals: First and last timestep of each.
        out: Where the picture goes.
    """
    columns = min(4, len(gaps))
    rows = -(-len(gaps) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (name, values) in zip(grid.flat, gaps.items(), strict=False):
        means = [statistics.fmean(own) for own in values]
        several = min(map(len, values)) > 1
        spread = [statistics.stdev(own) for own in values] if several else None
        colours = ["#D55E00" if mean < 0 else "#0072B2" for mean in means]
        axes.bar(range(len(means)), means, yerr=spread, color=colours, capsize=2)
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_xticks(range(len(means)), [str(start) for start, _ in intervals], fontsize=7)
        axes.set_title(textwrap.fill(name, 40), fontsize=7)
        axes.grid(axis="y", alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("first timestep of the interval", fontsize=7)
    for axes in grid[:, 0]:
        axes.set_ylabel("log gap (< 0: negative transfer)", fontsize=7)
    for axes in list(grid.flat)[len(gaps) :]:
        axes.set_visible(False)
    figure.savefig(out, dpi=110)


def draw_affinity(
    affinity: np.ndarray, timesteps: np.ndarray, log_snr: np.ndarray, out: Path
) -> None:
    """The affinity matrix against timestep and against log SNR.

    Args:
        affinity: `[m, m]`.
        timesteps: Middle of each bin, `[m]`.
        log_snr: Mean of each bin, `[m]`, falling.
        out: Where the picture goes.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    views = (("timestep", timesteps, affinity), ("log SNR", log_snr, affinity))
    for axes, (label, places, values) in zip(panels, views, strict=True):
        image = axes.pcolormesh(places, places, values, cmap="RdBu", vmin=-1, vmax=1)
        axes.set(xlabel=label, ylabel=label, aspect="equal")
    figure.colorbar(image, ax=panels, label="cosine of gradients")
    figure.savefig(out, dpi=110)
