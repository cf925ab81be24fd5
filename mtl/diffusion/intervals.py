"""Timesteps as ordered tasks: fine intervals, balanced draws, and batches by task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl.diffusion.process import Diffusion, Noisy
from mtl.errors import ConfigError
from mtl.model import Stacked


class Intervals:
    """The timesteps `0..T-1`, cut into n intervals of (nearly) equal size, each a task.

    Args:
        timesteps: T.
        count: n, 1 to T.

    Attributes:
        bounds: n + 1 half-open bounds.
        names: `t0_49`, `t50_99` and so on.

    Raises:
        ConfigError: n is not in 1..T.
    """

    def __init__(self, timesteps: int, count: int) -> None:
        if not 1 <= count <= timesteps:
            raise ConfigError(
                f"The number of intervals should be between 1 and {timesteps}, the number of "
                f"timesteps. Got {count}."
            )
        self.bounds = [round(i * timesteps / count) for i in range(count + 1)]
        pairs = zip(self.bounds[:-1], self.bounds[1:], strict=True)
        self.names = [f"t{start}_{end - 1}" for start, end in pairs]
        self._known: dict[tuple[tuple[str, ...], ...], tuple[Tensor, Tensor, Tensor]] = {}

    def positions(self, diffusion: Diffusion) -> list[float]:
        """Mean log SNR of each interval: where the tasks lie, for clustering."""
        parts = diffusion.log_snr.tensor_split(self.bounds[1:-1])
        return [float(part.mean()) for part in parts]

    def draw(
        self, size: int, clusters: Sequence[Sequence[str]], generator: torch.Generator
    ) -> Tensor:
        """Timesteps of a batch, sorted; each cluster gets an equal share of the samples.

        Within a cluster t is uniform. Draws are stratified: sample i of B takes its t where the
        cumulative distribution is `(i + u_i) / B`, so shares are exact where B is a multiple of the
        number of clusters, off by less than two samples otherwise, and exact on average.

        Args:
            size: B, at least the number of clusters.
            clusters: Groups of names of intervals; those in none are not drawn.
            generator: Decides the draw, and its device.

        Returns:
            int64 `[B]`.

        Raises:
            ConfigError: Fewer samples than clusters.
        """
        if size < len(clusters):
            raise ConfigError(
                f"A batch should have at least one sample a cluster. Got {size} samples for "
                f"{len(clusters)} clusters. Raise dataset.batch_size."
            )
        device = generator.device
        precise = torch.float32 if device.type == "mps" else torch.float64
        groups = tuple(map(tuple, clusters))
        starts, widths, shares = (part.to(device) for part in self._distribution(groups))
        shares = shares.to(precise)
        ends = shares.cumsum(0)
        u = torch.rand(size, generator=generator, device=device, dtype=precise)
        q = (torch.arange(size, device=device) + u) / size
        place = torch.searchsorted(ends, q, right=True).clamp_max(len(shares) - 1)
        within = (q - (ends - shares)[place]) / shares[place]
        own = widths[place]
        return starts[place] + (within * own).long().clamp(torch.zeros_like(own), own - 1)

    def _distribution(self, clusters: tuple[tuple[str, ...], ...]) -> tuple[Tensor, Tensor, Tensor]:
        """First timestep, number of timesteps and probability of each interval to draw from."""
        if clusters not in self._known:
            place = {name: i for i, name in enumerate(self.names)}
            rows = []
            for cluster in clusters:
                own = [(self.bounds[place[n]], self.bounds[place[n] + 1]) for n in cluster]
                total = sum(end - start for start, end in own) * len(clusters)
                rows += [(start, end - start, (end - start) / total) for start, end in own]
            starts, widths, shares = zip(*sorted(rows), strict=True)
            self._known[clusters] = (
                torch.tensor(starts),
                torch.tensor(widths),
                torch.tensor(shares, dtype=torch.float64),
            )
        return self._known[clusters]

    def by_task(self, noisy: Noisy, target: Tensor) -> tuple[Stacked, dict[str, Tensor]]:
        """Inputs and targets of each task, of a batch that is sorted by timestep.

        Args:
            noisy: The samples.
            target: What `gain * eps_hat` should be, `[B, ...]`.

        Returns:
            Task name -> its rows, for both; tasks without samples are missing.
        """
        edges = torch.tensor(self.bounds, device=noisy.t.device)
        counts = torch.searchsorted(noisy.t, edges).diff().tolist()
        sizes = {name: size for name, size in zip(self.names, counts, strict=True) if size}
        targets = target.split(list(sizes.values()))
        return Stacked(noisy, sizes), dict(zip(sizes, targets, strict=True))


def sorted_by_time(noisy: Noisy, *others: Tensor) -> tuple[Noisy, *tuple[Tensor, ...]]:
    """A batch in the order of its timesteps."""
    order = noisy.t.argsort(stable=True)
    return (Noisy(*(leaf[order] for leaf in noisy)), *(other[order] for other in others))
