"""Clustered denoising beside plain training: `python -m benchmarks.speed.diffusion`."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.diffusion.base import Clean
from benchmarks.diffusion.gmm import DiffusionGMM
from benchmarks.speed.tables import ratios
from benchmarks.speed.timing import Contender, interleave, timed
from mtl import Balancer, MultiTaskModel, Step
from mtl.aggregation import Every, NashMTLWeighting, PCGradWeighting
from mtl.diffusion import Denoiser, DenoisingUNet, Diffusion, DiT, ResidualMLP
from mtl.parts import Combiner
from mtl.scalarization import EqualWeighting, UncertaintyWeighting
from mtl.transforms import IntervalClustering, interval_clusters
from mtl.transforms.intervals import Objective

_CLUSTERS = 5
_TASKS = 20


class Workload:
    """One training step of a network on one batch, by several means; each with Adam.

    Args:
        network: Makes the network, routed or not.
        shape: Of a batch.
    """

    def __init__(self, network: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
        self.network = network
        self.diffusion = Diffusion()
        self.data = DiffusionGMM(self.diffusion, intervals=_TASKS)
        self.clean = Clean(torch.randn(shape), torch.zeros(shape[0], dtype=torch.int64))
        self.generator = torch.Generator().manual_seed(0)

    def vanilla(self, routing: str | None = None) -> Contender:
        """Plain PyTorch: random timesteps, one squared error, one backward pass."""
        denoiser = self._denoiser(routing)
        optimizer = torch.optim.Adam(denoiser.parameters())

        def step() -> None:
            optimizer.zero_grad()
            self._error(denoiser).mean().backward()
            optimizer.step()

        return timed(step)

    def repeated(self) -> Contender:
        """One backward pass a cluster over the graph of the whole batch; gradients are summed."""
        denoiser = self._denoiser()
        parameters = list(denoiser.parameters())
        optimizer = torch.optim.Adam(parameters)

        def step() -> None:
            optimizer.zero_grad()
            parts = self._error(denoiser).chunk(_CLUSTERS)
            rows = [torch.autograd.grad(p.mean(), parameters, retain_graph=True) for p in parts]
            for parameter, *own in zip(parameters, *rows, strict=True):
                parameter.grad = torch.stack(own).sum(0)
            optimizer.step()

        return timed(step)

    def clustered(self, balancer: Balancer, routing: str | None = None) -> Contender:
        """The framework: tasks, clusters, balancer."""
        denoiser = self._denoiser(routing)
        tasks = self.data.tasks(lambda _: nn.Identity())
        names = [task.name for task in tasks]
        model = MultiTaskModel(denoiser, tasks)
        self.data.clusters = balancer.clusters(names)
        groups = [{"params": list(model.parameters())}, *balancer.parameter_groups()]
        optimizer = torch.optim.Adam(groups)

        def step() -> None:
            optimizer.zero_grad()
            together = balancer.together(names)
            batch = self.data.noised(self.clean, self.generator)
            step = Step.evaluate(model, tasks, batch, needs=balancer.needs, together=together)
            balancer.backward(step)
            optimizer.step()

        return timed(step)

    def _denoiser(self, routing: str | None = None) -> Denoiser:
        torch.manual_seed(0)
        return Denoiser(self.network(routing=routing), self.diffusion)

    def _error(self, denoiser: Denoiser) -> Tensor:
        x, label = self.clean
        t = torch.randint(1000, (len(x),), generator=self.generator)
        eps = torch.randn(x.shape, generator=self.generator)
        noisy = self.diffusion.add_noise(x, t, eps)
        return (denoiser.predict(noisy, t, label) - eps).square().flatten(1).mean(1)


def balancers() -> dict[str, Balancer]:
    """What is compared; PCGrad solves in every step."""
    kinds: dict[str, Callable[[], Combiner]] = {
        "ew": EqualWeighting,
        "uw": lambda: UncertaintyWeighting(_CLUSTERS),
        "pcgrad": PCGradWeighting,
        "nash_mtl, solved in every step": NashMTLWeighting,
        "nash_mtl, between solutions": lambda: Every(NashMTLWeighting(), _CLUSTERS, every=1000),
    }
    return {
        name: Balancer(make(), transforms=[IntervalClustering(_TASKS, _CLUSTERS)])
        for name, make in kinds.items()
    }


def time_clustering(console: Console) -> None:
    """CPU time of the dynamic programme."""
    for timesteps in (1000, 4000):
        values = Diffusion(timesteps=timesteps).log_snr.numpy()
        affinity = torch.from_numpy(-abs(values[:, None] - values) / 4).exp().numpy()
        problems: dict[Objective, Any] = {
            "timestep": timesteps,
            "snr": values,
            "gradient": affinity,
        }
        for objective, given in problems.items():
            seconds = []
            for _ in range(5):
                started = time.process_time()
                interval_clusters(given, _CLUSTERS, objective)
                seconds.append(time.process_time() - started)
            milliseconds = 1000 * sorted(seconds)[2]
            console.print(f"{timesteps} timesteps, {objective}: {milliseconds:.1f} ms")


def main() -> None:
    """Times the networks and the clustering."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--networks", default="mlp,unet,dit", help="which of them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console = Console()
    console.print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread, CPU "
        f"time, {options.rounds} interleaved rounds; ratio to plain training: median (quartiles)"
    )
    time_clustering(console)
    workloads = {
        "mlp": ("MLP of diffusion_digits, batch 250", lambda **o: ResidualMLP(64, **o), (250, 64)),
        "unet": ("U-Net of diffusion_mnist, batch 50", DenoisingUNet, (50, 1, 28, 28)),
        "dit": ("DiT, 49 tokens of width 96, batch 50", DiT, (50, 1, 28, 28)),
    }
    for name in options.networks.split(","):
        title, network, shape = workloads[name]
        workload = Workload(network, shape)  # type: ignore[arg-type]
        contenders = {
            "plain PyTorch": workload.vanilla(),
            "plain PyTorch, dtr": workload.vanilla("dtr"),
            "5 passes over the whole batch": workload.repeated(),
        }
        contenders |= {f"clusters, {n}": workload.clustered(b) for n, b in balancers().items()}
        times = interleave(contenders, rounds=options.rounds)
        ratios(title, times, "plain PyTorch").show(console)


if __name__ == "__main__":
    main()
