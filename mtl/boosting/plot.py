"""The picture of gates over iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_gates(
    history: NDArray[np.float64], tasks: NDArray, outliers: NDArray, ax: Axes | None = None
) -> Axes:
    """Draws gates [iterations + 1, T]: outlier tasks in colour, the others in grey."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    outside = np.isin(tasks, outliers)
    ax.plot(history[:, ~outside], color="0.6", linewidth=0.8)
    for label, line in zip(tasks[outside], history[:, outside].T, strict=True):
        ax.plot(line, linewidth=1.6, label=f"{label}")
    if 0 < outside.sum() <= 12:
        ax.legend(title="outlier tasks", fontsize="small", loc="center right")
    ax.set(xlabel="iteration of the gated block", ylabel="gate", ylim=(-0.02, 1.02))
    return ax
