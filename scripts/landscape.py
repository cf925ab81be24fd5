"""Draws the loss of every task around two checkpoints, and prints how it rises with the distance.

python scripts/landscape.py ckpt=[outputs/.../a.ckpt,outputs/.../b.ckpt] names=[pcgrad,task-SAM]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor  # noqa: E402

from mtl import MTLModule  # noqa: E402
from mtl.callbacks import AtomicCheckpointIO  # noqa: E402
from mtl.errors import ConfigError, MTLError  # noqa: E402
from mtl.report.landscape import Landscape, Losses, draw_lines, draw_planes  # noqa: E402
from train import assemble  # noqa: E402


@dataclass
class Options:
    """What can be given as `name=value`.

    Attributes:
        ckpt: Checkpoints of runs, one or more.
        names: What to call them. Default: the folders of the runs.
        part: Data that the loss is measured on: train, val or test.
        samples: How many of them.
        points: Points a line; the plane has its square.
        distance: Half the width of the pictures; 1 moves every filter by its own length.
        radii: Lengths of the perturbations in the table.
        seed: Of the random directions.
        out: Folder for the pictures.
    """

    ckpt: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    part: str = "train"
    samples: int = 512
    points: int = 21
    distance: float = 0.5
    radii: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.5, 1.0])
    seed: int = 0
    out: str = "landscape"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    try:
        report(_options(sys.argv[1:] if arguments is None else arguments))
    except MTLError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def report(options: Options) -> None:
    """Measures, draws and prints."""
    distances = torch.linspace(-options.distance, options.distance, options.points).tolist()
    lines, planes, tables = {}, {}, {}
    tasks: tuple[str, ...] = ()
    for path, name in zip(options.ckpt, _names(options), strict=True):
        module, losses = restore(path, options)
        names = tuple(task.name for task in module.tasks)
        if tasks and names != tasks:
            raise ConfigError(f"Checkpoints should have the same tasks. Got {tasks} and {names}.")
        tasks = names
        landscape = Landscape(module.model, losses, seed=options.seed)
        lines[name], planes[name] = landscape.line(distances), landscape.plane(distances)
        radii = [0.0, *options.radii]
        tables[name] = landscape.uphill(radii), landscape.around(radii)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    draw_lines(folder / "lines.png", tasks, distances, lines)
    draw_planes(folder / "planes.png", tasks, distances, planes)
    show(tasks, options, tables)
    print(f"{folder / 'lines.png'}, {folder / 'planes.png'}")


def restore(path: str, options: Options) -> tuple[MTLModule, Losses]:
    """The trained model in evaluation mode, and its losses on some samples."""
    checkpoint = AtomicCheckpointIO().load_checkpoint(path)
    if "config" not in checkpoint:
        raise ConfigError(f"{path} should be a checkpoint of train.py, with its configuration.")
    config = checkpoint["config"] | {"ckpt_path": path}  # all weights are there
    module, benchmark = assemble(OmegaConf.create(config))
    prefix = "model."
    state = checkpoint["state_dict"].items()
    module.model.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state if k.startswith(prefix)}
    )
    module.model.eval()
    benchmark.prepare_data()
    benchmark.setup("fit")
    data: Any = getattr(benchmark, f"{options.part}_data")
    inputs, targets = data.__getitems__(list(range(min(options.samples, len(data)))))

    def losses() -> Tensor:
        predictions = module.model(inputs).predictions
        return torch.stack(
            [t.evaluate(predictions[t.name], targets[t.name])[0] for t in module.tasks]
        )

    return module, losses


def show(tasks: Sequence[str], options: Options, tables: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Loss by radius, uphill and on average around."""
    title = f"loss on {options.samples} samples of {options.part} at a distance from the checkpoint"
    table = Table(title=title)
    for column in ("task", "checkpoint", "direction", "0", *map(str, options.radii)):
        table.add_column(column, justify="left" if len(table.columns) < 3 else "right")
    for i, task in enumerate(tasks):
        for name, measured in tables.items():
            for direction, values in zip(("uphill", "random"), measured, strict=True):
                figures = [f"{value:.3g}" for value in values[:, i].tolist()]
                table.add_row(task, name, direction, *figures)
    Console().print(table)


def _options(arguments: Sequence[str]) -> Options:
    try:
        given = OmegaConf.from_cli(list(arguments))
        if isinstance(given.get("ckpt"), str):
            given.ckpt = [given.ckpt]
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), given))
    except OmegaConfBaseException as error:
        known = list(Options.__dataclass_fields__)
        raise ConfigError(
            f"Options should be some of {known}, as name=value. Got {list(arguments)}: "
            f"{str(error).splitlines()[0]}."
        ) from error
    assert isinstance(options, Options)
    if not options.ckpt:
        raise ConfigError(
            "`ckpt` should name one or two checkpoints: ckpt=[a.ckpt,b.ckpt]. Got none."
        )
    if options.part not in ("train", "val", "test"):
        raise ConfigError(f"`part` should be train, val or test. Got {options.part!r}.")
    if min(options.points, options.samples) < 2 or options.distance <= 0:
        raise ConfigError("`points` and `samples` should be 2 or more, `distance` positive.")
    return options


def _names(options: Options) -> list[str]:
    names = options.names or [
        f"{Path(path).resolve().parents[1].parent.name} {i + 1}"
        for i, path in enumerate(options.ckpt)
    ]
    if len(set(names)) < len(options.ckpt) or len(names) != len(options.ckpt):
        raise ConfigError(f"`names` should give each checkpoint a name. Got {options.names}.")
    return names


if __name__ == "__main__":
    sys.exit(main())
