"""Does task-SAM help? Pictures of two real digits, with clean and with wrong labels.

python scripts/flatness.py --out flatness.jsonl             # trains what the file lacks, and shows
python scripts/flatness.py --out flatness.jsonl --show      # shows only
python scripts/flatness.py --out flatness.jsonl --show --write docs/task_sam.md
python scripts/flatness.py --out ablation.jsonl --study ablation
python scripts/flatness.py --out trap.jsonl --study trap --noise 0.15
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from rich.console import Console  # noqa: E402

from benchmarks.base import Benchmark  # noqa: E402
from benchmarks.speed.tables import Table, rewrite  # noqa: E402
from mtl import Balancer, MultiTaskModel, Step, Task, Weighting  # noqa: E402
from mtl.config import build, register_schema  # noqa: E402
from mtl.sharpness import TaskSAM  # noqa: E402

EPOCHS, LAST = 20, 10
MNIST = (
    "dataset=multimnist",
    "dataset.train_count=4000",
    "model=mlp",
    "model.backbone.in_features=784",
)
DIGITS = ("dataset=multidigits", "dataset.train_count=1500", "optimizer.lr=2e-3")
RHO = 0.1
TASK_SAM = ("balancer/sharpness=task_sam", f"balancer.sharpness.rho_shared={RHO}")
G_SAM = (
    "balancer/sharpness=joint_sam",
    f"balancer.sharpness.rho={RHO}",
    "balancer.sharpness.norm=separate",
)


class Variant(NamedTuple):
    """A row of the table: a balancer, on what data, and how long it trains."""

    name: str
    options: tuple[str, ...]
    epochs: int = EPOCHS
    reuse: bool = False  # the clean point's weights for the flat part: the trap
    data: tuple[str, ...] = MNIST


def joint(start: float, every: int, *, reuse: bool = False) -> tuple[str, ...]:
    """Task-SAM with a joint perturbation."""
    return (
        *TASK_SAM,
        "balancer.sharpness.perturbation=joint",
        f"balancer.sharpness.start={start}",
        f"balancer.sharpness.every={every}",
        f"balancer.sharpness.reuse={reuse}",
    )


def longer(ratio: float) -> int:
    """Epochs of the plain method in the time of `EPOCHS` epochs that cost `ratio` times more."""
    return round(ratio * EPOCHS)


MAIN = [
    Variant("ew", ("balancer=ew",)),
    Variant("ew, as long as task-SAM", ("balancer=ew",), longer(3.5)),
    Variant("ew + task-SAM", ("balancer=ew", *TASK_SAM)),
    *(
        variant
        for name in ("pcgrad", "mgda", "imtl_g")
        for variant in (
            Variant(name, (f"balancer={name}",)),
            Variant(f"{name}, as long as task-SAM", (f"balancer={name}",), longer(2.5)),
            Variant(f"{name} + task-SAM", (f"balancer={name}", *TASK_SAM)),
        )
    ),
    Variant("mgda + G-SAM", ("balancer=mgda", *G_SAM)),
    Variant("mgda + fast task-SAM", ("balancer=mgda", *joint(0.0, 4))),
]
ABLATION = [
    Variant("mgda", ("balancer=mgda",)),
    Variant("per task", ("balancer=mgda", *TASK_SAM)),
    *(
        Variant(f"joint, start {start}, every {every}", ("balancer=mgda", *joint(start, every)))
        for start, every in (
            *((0.0, 1), (0.5, 1), (0.7, 1), (0.9, 1)),
            *((0.0, 2), (0.0, 3), (0.0, 4), (0.0, 5), (0.4, 2)),
        )
    ),
    *(
        Variant(
            f"joint, every {every}, flat part reused between",
            ("balancer=mgda", *joint(0.0, every, reuse=True)),
        )
        for every in (2, 3, 4, 5)
    ),
    Variant("G-SAM", ("balancer=mgda", *G_SAM)),
    Variant("joint, clean weights reused", ("balancer=mgda", *joint(0.0, 1)), reuse=True),
]
FARTHER = ("balancer=mgda", *joint(0.0, 1), "balancer.sharpness.rho_shared=0.2")
RADII = [
    Variant("mgda", ("balancer=mgda",)),
    *(
        Variant(
            f"rho {rho}{' adaptive' * adaptive}",
            (
                "balancer=mgda",
                "balancer/sharpness=task_sam",
                f"balancer.sharpness.rho_shared={rho}",
                f"balancer.sharpness.adaptive={adaptive}",
            ),
        )
        for adaptive, radii in ((False, (0.02, 0.05, 0.1, 0.2)), (True, (0.2, 0.5, 1.0)))
        for rho in radii
    ),
]
TRAP = [
    Variant(f"{name}{', heads weighted' * weighted}", (*options, *heads), 40, reuse, DIGITS)
    for weighted, heads in ((False, ()), (True, ("balancer.head_grad=weighted",)))
    for name, options, reuse in (
        ("mgda", ("balancer=mgda",), False),
        ("mgda + joint task-SAM", FARTHER, False),
        ("the same, clean weights reused", FARTHER, True),
    )
]
STUDIES = {"main": MAIN, "ablation": ABLATION, "radii": RADII, "trap": TRAP}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing in the file of results, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="results, a line a run")
    parser.add_argument("--study", choices=list(STUDIES), default="main")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.2])
    parser.add_argument("--part", choices=["val", "test"], default="test", help="data to score on")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run later")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="rewrite the tables that stand there"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    variants = STUDIES[options.study]
    started = time.monotonic()
    for key in itertools.product(options.seeds, options.noise, variants):
        if options.show or time.monotonic() - started > options.seconds:
            break
        if identity(options, *key) not in {tuple(r["run"]) for r in read(options.out)}:
            result = train(*key, part=options.part)
            line = json.dumps({"run": identity(options, *key), **result})
            with options.out.open("a") as file:
                file.write(line + "\n")
    show(options, variants)
    return 0


def identity(options: argparse.Namespace, seed: int, noise: float, variant: Variant) -> tuple:
    """What tells a run from others in the file."""
    return (options.study, options.part, noise, variant.name, seed)


class Noting(Weighting):
    """Another weighting, whose last weights can be read."""

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        self.weighting = weighting
        self.last: torch.Tensor | None = None

    def forward(self, gramian: torch.Tensor) -> torch.Tensor:
        """Weights `[m]` from the Gramian `[m, m]`."""
        self.last = self.weighting(gramian)
        return self.last


class Reusing(Weighting):
    """Gives the last weights of another weighting, whatever the gradients are."""

    def __init__(self, source: Noting) -> None:
        super().__init__()
        self._source = (source,)  # not a part of this one

    def forward(self, gramian: torch.Tensor) -> torch.Tensor:
        """Weights `[m]`, without a look at the Gramian."""
        assert self._source[0].last is not None
        return self._source[0].last.to(gramian)


def read(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train(seed: int, noise: float, variant: Variant, *, part: str) -> dict[str, Any]:
    """Trains once; accuracies in percent on the clean labels after each epoch, and CPU seconds."""
    benchmark, model, tasks, balancer, optimizer = assemble(seed, noise, variant)
    loader = benchmark.train_dataloader()
    steps = variant.epochs * len(loader)
    accuracies, seconds = [], 0.0
    for epoch in range(variant.epochs):
        begin = time.process_time()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        balancer.on_epoch_start(epoch)
        model.train()
        for i, batch in enumerate(loader):
            step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
            step.progress = (epoch * len(loader) + i) / steps
            optimizer.zero_grad()
            balancer.backward(step)
            optimizer.step()
            balancer.after_step(step)
        seconds += time.process_time() - begin
        accuracies.append(score(model, getattr(benchmark, f"{part}_dataloader")()))
    return {"accuracies": accuracies, "seconds": round(seconds, 2), "steps": steps}


def assemble(
    seed: int, noise: float, variant: Variant
) -> tuple[Benchmark, MultiTaskModel, list[Task], Balancer, torch.optim.Optimizer]:
    """Data, model and balancer as `train.py` makes them of the same options."""
    register_schema()
    options = [*variant.data, *variant.options]
    options += [f"dataset.label_noise={{right: {noise}}}"] if noise else []
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("train", options)
    torch.manual_seed(seed)
    benchmark: Benchmark = build(config.dataset)
    benchmark.seed = seed
    benchmark.setup("fit")
    backbone, head = build(config.model.backbone), build(config.model.head)
    tasks = benchmark.tasks(lambda size: head(backbone.out_channels, size))
    config.num_tasks = len(tasks)
    model = MultiTaskModel(backbone, tasks)
    optimizer = build(config.optimizer)(model.parameters())
    balancer: Balancer = build(config.balancer)
    if variant.reuse:
        noting = Noting(cast("Weighting", balancer.combine))
        balancer.combine = noting
        cast("TaskSAM", balancer.sharpness).flat_combine = Reusing(noting)
    return benchmark, model, tasks, balancer, optimizer


@torch.no_grad()
def score(model: MultiTaskModel, loader: Any) -> list[float]:
    """Accuracy of both tasks in percent."""
    model.eval()
    right, total = torch.zeros(2), 0
    for inputs, targets in loader:
        predictions = model(inputs).predictions
        right += torch.stack(
            [(predictions[name].argmax(1) == targets[name]).sum() for name in ("left", "right")]
        )
        total += len(inputs)
    return (100 * right / total).tolist()


def show(options: argparse.Namespace, variants: Sequence[Variant]) -> None:
    """One table a noise level: mean and standard deviation over the seeds.

    Differences to the first row are those of runs with the same seed, with their standard errors.
    """
    runs = {tuple(run["run"]): run for run in read(options.out)}
    for noise in options.noise:
        title = f"{noise:.0%} wrong training labels of the right digit, {options.part} data"
        rows = []
        for variant in variants:
            keys = [
                [identity(options, s, noise, v) for v in (variant, variants[0])]
                for s in options.seeds
            ]
            pairs = [(runs[own], runs.get(first)) for own, first in keys if own in runs]
            if pairs:
                own = [run for run, _ in pairs]
                gained = gains([(run, first) for run, first in pairs if first is not None])
                rows.append(
                    [variant.name, *columns(own), *gained, str(variant.epochs), *_cost(own)]
                )
        last = f"last {LAST}"
        heads = ["balancer", "best", last, f"left, {last}", f"right, {last}"]
        heads += [f"to {variants[0].name}: best", f"to {variants[0].name}: {last}"]
        table = Table(
            f"{options.study} {noise:.0%}", title, [*heads, "epochs", "CPU s", "seeds"], rows
        )
        if options.write is None:
            table.show(Console())
        elif rows:
            rewrite(options.write, table.name, f"\n{table.markdown()}\n")


def columns(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Best epoch's mean accuracy, that of the last ones, and the last ones by task."""
    for values in zip(*map(scores, runs), strict=True):
        yield spread(values)
    for task in (0, 1):
        yield spread([statistics.mean(p[task] for p in run["accuracies"][-LAST:]) for run in runs])


def gains(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[str]:
    """Mean difference of both scores, and its standard error; nothing to say of a run by itself."""
    for which in (0, 1):
        found = [scores(run)[which] - scores(first)[which] for run, first in pairs]
        if len(found) < 2 or not any(found):
            yield ""
            continue
        error = statistics.stdev(found) / len(found) ** 0.5
        yield f"{statistics.mean(found):+.2f} ± {error:.2f}"


def scores(run: dict[str, Any]) -> tuple[float, float]:
    """Mean accuracy of both tasks: at the best epoch, and over the last ones."""
    means = [statistics.mean(pair) for pair in run["accuracies"]]
    return max(means), statistics.mean(means[-LAST:])


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def _cost(runs: Sequence[dict[str, Any]]) -> tuple[str, str]:
    return f"{statistics.mean(run['seconds'] for run in runs):.0f}", str(len(runs))


if __name__ == "__main__":
    sys.exit(main())
