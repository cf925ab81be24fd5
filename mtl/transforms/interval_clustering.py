"""Many ordered tasks as few: the losses of neighbours are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtl.errors import ConfigError, DataError
from mtl.parts import Transform
from mtl.transforms.intervals import interval_clusters

T = TypeVar("T")


class IntervalClustering(Transform):
    """Clusters an ordered set of n tasks into k intervals: `L_c = mean of L_i over i in c`.

    What follows sees k objectives: any combiner weighs clusters, at the cost of k tasks. The
    bounds are the optimum of `interval_clusters`. A denoiser's tasks are its timesteps, in n fine
    intervals of which each is a task; this is ANT's clustering of them.

    Args:
        num_tasks: n.
        k: Number of clusters, 1 to n.
        objective: `timestep`: by the position in the order (equal sizes); `snr`: by `values`;
            `gradient`: by `affinity`.
        values: One number a task, monotone; for diffusion the log SNR.
        affinity: Cosines of the tasks' gradients, `[n, n]`, or the file of them that
            `scripts/affinity.py` writes.
        weighting: `equal`: clusters count alike, as in the official code. `size`: cluster c is
            multiplied by `k |c| / n`, so that equal weighting of clusters of any size is equal
            weighting of the tasks.
        min_size: Least number of tasks in a cluster.
        max_size: Greatest number; default: no limit.

    A task that is absent from a step is left out of its cluster's mean; a cluster without any
    present task is absent, for what follows too.

    Attributes:
        bounds: k + 1 half-open bounds, in tasks.

    Raises:
        ConfigError: Arguments that do not fit; see `interval_clusters`.
        DataError: The file of affinities cannot be read.

    References:
        Go, Kim, Lee, Lee, Park, Lee. Addressing Negative Transfer in Diffusion Models. NeurIPS
        2023. https://arxiv.org/abs/2306.00354
    """

    mixing: Tensor
    factors: Tensor

    def __init__(
        self,
        num_tasks: int,
        k: int = 5,
        *,
        objective: Literal["timestep", "snr", "gradient"] = "timestep",
        values: Sequence[float] | None = None,
        affinity: str | Path | ArrayLike | Tensor | None = None,
        weighting: Literal["equal", "size"] = "equal",
        min_size: int = 1,
        max_size: int | None = None,
    ) -> None:
        super().__init__()
        if objective not in ("timestep", "snr", "gradient"):
            raise ConfigError(
                f"`objective` should be timestep, snr or gradient. Got {objective!r}."
            )
        if weighting not in ("equal", "size"):
            raise ConfigError(f"`weighting` should be equal or size. Got {weighting!r}.")
        given: Any = {"timestep": num_tasks, "snr": values, "gradient": affinity}[objective]
        if given is None:
            name = "values" if objective == "snr" else "affinity"
            raise ConfigError(
                f"objective={objective!r} should come with `{name}`. Got none. Denoising tasks "
                "know their log SNR; `scripts/affinity.py` computes affinities."
            )
        if isinstance(given, str | Path):
            given = _read(Path(given))
        if not isinstance(given, int) and len(given) != num_tasks:
            raise ConfigError(
                f"`values` or `affinity` should have one entry a task, {num_tasks}. Got "
                f"{len(given)}."
            )
        self.k = k
        self.weighting = weighting
        self.bounds = interval_clusters(given, k, objective, min_size=min_size, max_size=max_size)
        mixing = torch.zeros(k, num_tasks)
        for cluster, (start, end) in enumerate(pairwise(self.bounds)):
            mixing[cluster, start:end] = 1 / (end - start)
        self.register_buffer("mixing", mixing, persistent=False)
        sizes = torch.tensor(np.diff(self.bounds), dtype=torch.float32)
        factors = sizes * k / num_tasks if weighting == "size" else torch.ones(k)
        self.register_buffer("factors", factors, persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Mean losses of the clusters, `[a] -> [k]` (fewer where clusters are absent)."""
        mixing, factors = self.mixing, self.factors
        if isinstance(self.present, Tensor):
            there = self.outputs()
            mixing, factors = mixing[there][:, self.present], factors[there]
            mixing = mixing / mixing.sum(1, keepdim=True)
        return factors.to(losses) * (mixing.to(losses) @ losses)

    def outputs(self) -> slice | Tensor:
        """Index of the clusters with a present task."""
        if not isinstance(self.present, Tensor):
            return slice(None)
        return self.mixing[:, self.present].any(1).nonzero()[:, 0]

    def merge(self, groups: Sequence[Sequence[T]]) -> list[list[T]]:
        """The tasks of each cluster."""
        return [
            [task for group in groups[start:end] for task in group]
            for start, end in pairwise(self.bounds)
        ]

    def extra_repr(self) -> str:
        """Bounds of the clusters."""
        return f"bounds={self.bounds}, weighting={self.weighting!r}"


def _read(path: Path) -> np.ndarray:
    try:
        content = np.load(path)
        return content["affinity"] if path.suffix == ".npz" else content
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} should hold an affinity matrix, as scripts/affinity.py writes it (.npz with "
            f"`affinity`, or .npy). Got {error}."
        ) from error
