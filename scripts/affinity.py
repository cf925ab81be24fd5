r"""Computes affinities of denoising tasks: cosines of gradients, averaged over checkpoints.

python scripts/affinity.py outputs/.../last.ckpt --out affinity.npz
python train.py balancer=ant dataset=... balancer.transforms.interval_clusters.objective=gradient \
    balancer.transforms.interval_clusters.affinity=affinity.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from benchmarks.diffusion.base import Clean
from benchmarks.diffusion.checkpoints import rebuild
from benchmarks.diffusion.draw import draw_affinity
from mtl.diffusion import Denoiser, Intervals
from mtl.errors import ConfigError, MTLError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ckpt", nargs="+", type=Path, help="checkpoints of one run or several")
    parser.add_argument("--out", type=Path, required=True, help="matrix, .npz; picture beside it")
    parser.add_argument("--bins", type=int, help="bins of timesteps; default: one a task")
    parser.add_argument("--samples", type=int, default=1000, help="training samples a gradient")
    parser.add_argument("--batch", type=int, default=250, help="samples at once")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB for gradients")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        total: Any = 0.0
        for path in options.ckpt:
            dataset, denoiser = rebuild(path)
            bins = Intervals(
                dataset.diffusion.timesteps, options.bins or len(dataset.intervals.names)
            )
            data: Any = dataset.clean("train")
            generator = torch.Generator().manual_seed(options.seed)
            rows = torch.randint(len(data), (options.samples,), generator=generator)
            clean = data.__getitems__(rows.tolist())
            total = total + affinity(
                denoiser.to(options.device),
                clean,
                bins,
                batch=options.batch,
                memory=options.memory,
                seed=options.seed,
            )
        matrix = np.asarray(total) / len(options.ckpt)
        bounds = np.array(bins.bounds)
        log_snr = np.array(bins.positions(denoiser.diffusion))
        np.savez(options.out, affinity=matrix, bounds=bounds, log_snr=log_snr)
        picture = options.out.with_suffix(".png")
        draw_affinity(matrix, (bounds[:-1] + bounds[1:] - 1) / 2, log_snr, picture)
        print(f"{options.out}, {picture}: {len(matrix)} bins, {len(options.ckpt)} checkpoint(s)")
    except MTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def affinity(
    denoiser: Denoiser,
    clean: Clean,
    bins: Intervals,
    *,
    batch: int = 250,
    memory: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Cosines of the gradients of the bins' losses by all parameters, `[m, m]`, float64.

    Every bin sees the same samples, the same noise and the same place within the bin (common random
    numbers), in evaluation mode: what differs between gradients is the noise level alone.
    Gradients are computed in blocks; where two blocks do not fit into memory together, some are
    computed again.

    Args:
        denoiser: Its parameters are what gradients are taken by.
        clean: The samples.
        bins: The bins of timesteps, m of them.
        batch: Samples of one backward pass.
        memory: GiB for gradients.
        seed: Of noise and places.

    Raises:
        ConfigError: Two gradients need more memory than that.
    """
    denoiser = denoiser.eval().requires_grad_(True)
    size = sum(p.numel() for p in denoiser.parameters())
    count = len(bins.names)
    block = int(memory * 2**30 // (2 * 4 * size))
    if block < 1:
        raise ConfigError(
            f"`memory` should hold two gradients of {size:,} numbers, {8 * size / 2**30:.2g} GiB. "
            f"Got {memory}."
        )
    starts = range(0, count, block)
    result = np.eye(count)
    for a in starts:
        first = _gradients(denoiser, clean, bins, range(a, min(a + block, count)), batch, seed)
        for b in starts:
            if b < a:
                continue
            rows = range(b, min(b + block, count))
            second = first if a == b else _gradients(denoiser, clean, bins, rows, batch, seed)
            cosines = (first @ second.T).double().cpu().numpy()
            result[a : a + block, b : b + block] = cosines
            result[b : b + block, a : a + block] = cosines.T
    np.fill_diagonal(result, 1.0)
    return (result + result.T) / 2


def _gradients(
    denoiser: Denoiser, clean: Clean, bins: Intervals, chosen: range, batch: int, seed: int
) -> Tensor:
    """Normalized gradients of some bins, `[r, P]`."""
    parameters = list(denoiser.parameters())
    rows = []
    for index in chosen:
        total = [torch.zeros_like(p) for p in parameters]
        for loss in _losses(denoiser, clean, bins, index, batch, seed):
            parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(total, parts)
        row = torch.cat([g.flatten() for g in total])
        rows.append(row / row.norm().clamp_min(torch.finfo(row.dtype).tiny))
    return torch.stack(rows)


def _losses(
    denoiser: Denoiser, clean: Clean, bins: Intervals, index: int, batch: int, seed: int
) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clean.x.shape, generator=generator)
    places = torch.rand(len(clean.x), generator=generator)
    start, end = bins.bounds[index], bins.bounds[index + 1]
    device = next(denoiser.parameters()).device
    for parts in zip(*(t.split(batch) for t in (*clean, noise, places)), strict=True):
        x, label, eps, place = (part.to(device) for part in parts)
        t = start + (place * (end - start)).long().clamp_max(end - start - 1)
        error = denoiser.predict(denoiser.diffusion.add_noise(x, t, eps), t, label) - eps
        yield error.square().flatten(1).mean(1).sum() / len(clean.x)


if __name__ == "__main__":
    sys.exit(main())
