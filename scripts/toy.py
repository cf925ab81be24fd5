"""Draws the paths of balancing methods on a two-task problem with a known Pareto set.

python scripts/toy.py --problem surface --methods ew,pcgrad,mgda --out toy.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from rich.progress import track  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.toy import PROBLEMS, Problem, descend  # noqa: E402
from mtl import Balancer  # noqa: E402
from mtl.config import build, explain, register_schema  # noqa: E402
from mtl.errors import MTLError  # noqa: E402

CONFIGS = ROOT / "configs"

# Presets about the network: there is none here.
NETWORK = ("r_mtgb", "rep_mtl", "rep_mtl_csa", "rep_mtl_tsr", "stl")
# Presets about several tasks or chosen weights: for two tasks and no choice, the paths are those of
# uw, nash_mtl, pcgrad, ew (three times), or of the first loss alone (krum).
MANY = ("ant", "ant_nash", "ant_pcgrad", "constant", "outlier_weights", "trimmed_mean", "krum")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the methods and writes one picture."""
    presets = sorted(p.stem for p in (CONFIGS / "balancer").glob("*.yaml") if p.stem != "default")
    chosen = [name for name in presets if name not in (*NETWORK, *MANY)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", choices=list(PROBLEMS), default="surface")
    parser.add_argument(
        "--methods",
        default=",".join(chosen),
        help="names of balancer presets; default: all that say something on two tasks",
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--learning-rate", type=float, default=0.15)
    parser.add_argument("--out", type=Path, default=Path("toy.png"))
    options = parser.parse_args(arguments)
    methods = options.methods.split(",")
    unknown = sorted(set(methods) - set(presets))
    if unknown:
        parser.error(f"unknown method(s) {unknown}; there are {presets}")
    without = sorted(set(methods) & set(NETWORK))
    if without:
        parser.error(f"{without} are about the network, and there is none here: leave them out")
    torch.set_num_threads(1)
    problem = PROBLEMS[options.problem]
    paths: dict[str, list[Tensor]] = {}
    for method in track(methods, description="Descending"):
        try:
            paths[method] = [follow(problem, method, start, options) for start in problem.starts]
        except (MTLError, HydraException) as error:
            message = explain(error, CONFIGS) or error
            print(f"{method} is left out. {message}", file=sys.stderr)
    if not paths:
        return 2
    draw(problem, paths, options.out)
    print(f"{options.out}: {len(paths)} methods on {options.problem}")
    return 0


def preset(name: str) -> Balancer:
    """A preset for two tasks, at the parameter level: these problems have no representation."""
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", [f"balancer={name}", "balancer.level=parameters", "num_tasks=2"])
    clusters = (config.balancer.get("transforms") or {}).get("interval_clusters")
    if clusters is not None:
        clusters.k = min(clusters.k, config.num_tasks)
    return build(config.balancer)


def follow(
    problem: Problem, method: str, start: tuple[float, float], options: argparse.Namespace
) -> Tensor:
    """The path of a method, `[steps + 1, 2]`."""
    torch.manual_seed(0)
    return descend(
        problem,
        preset(method),
        start,
        steps=options.steps,
        learning_rate=options.learning_rate,
        decay=True,
    )


def draw(problem: Problem, paths: dict[str, list[Tensor]], out: Path) -> None:
    """One panel a method: contours of the mean loss, the Pareto set, the paths."""
    columns = min(6, len(paths))
    count = -(-len(paths) // columns)
    size = (2.6 * columns, 2.7 * count)
    figure, grid = plt.subplots(count, columns, figsize=size, squeeze=False, layout="constrained")
    for axes, (method, own) in zip(grid.flat, paths.items(), strict=False):
        _panel(axes, problem, own)
        axes.set_title(method, fontsize=9)
    for axes in list(grid.flat)[len(paths) :]:
        axes.set_visible(False)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, problem: Problem, paths: list[Tensor]) -> None:
    x0, x1, y0, y1 = problem.window
    x = torch.linspace(x0, x1, 150, dtype=torch.float64)
    y = torch.linspace(y0, y1, 150, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    axes.contour(x, y, problem.losses(points).mean(-1), levels=15, cmap="Greys", linewidths=0.5)
    axes.plot(*problem.front.T, color="0.6", linewidth=4, alpha=0.6)
    for path, colour in zip(paths, ("#0072B2", "#D55E00", "#009E73"), strict=True):
        axes.plot(*path.T, color=colour, linewidth=1.2)
        axes.plot(*path[0], "o", color=colour, markersize=4)
        axes.plot(*path[-1], "*", color=colour, markersize=9, markeredgecolor="black")
    axes.set_xlim(x0, x1)
    axes.set_ylim(y0, y1)
    axes.tick_params(labelsize=6)


if __name__ == "__main__":
    sys.exit(main())
