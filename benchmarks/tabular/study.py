"""Networks on tasks with outliers: who is found, and who is harmed.

    python -m benchmarks.tabular.study --out runs.jsonl            # runs what is missing there
    python -m benchmarks.tabular.study --out runs.jsonl --table    # prints the tables
    python -m benchmarks.tabular.study --out runs.jsonl --plot outliers.png
    python -m benchmarks.tabular.study --alarms 50                 # who is accused among equals?

Every run trains a multilayer perceptron on ten tasks of 100 rows, 600 steps on all rows, Adam at
0.003. A task's error is that on 1,000 test rows at the step where its own 50 validation rows are
predicted best; it is relative to equal weighting with the same seed in the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.speed.tables import Table
from benchmarks.tabular.synthetic import make_tasks
from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import OutlierWeighting, PCGradWeighting
from mtl.losses import MSE
from mtl.model import optimizer_groups
from mtl.models import (
    MLP,
    HardSharing,
    OutlierGate,
    SeparateNetworks,
    gates,
    outlier_scores,
    outliers,
)
from mtl.parts import Combiner
from mtl.scalarization import EqualWeighting, GroupDRO, UncertaintyWeighting

_TASKS, _FEATURES, _TRAIN, _VAL, _TEST = 10, 5, 100, 50, 1000
_STEPS, _EVERY, _LR = 600, 10, 3e-3
_REFERENCE = "ew"


class Case(NamedTuple):
    """Which network meets which outliers.

    Attributes:
        width: Size of the representation.
        tied: All tasks have one head, so that no head can undo the opposite sign.
    """

    kind: str
    width: int
    tied: bool = False


class Method(NamedTuple):
    """A balancer and a way to share."""

    combine: Callable[[], Combiner] = EqualWeighting
    sharing: Callable[[], HardSharing] = HardSharing
    hidden: int = 32


CASES = {
    "function": Case("function", 1),
    "flip": Case("flip", 16, tied=True),
    "noise": Case("noise", 2),
}
METHODS = {
    "ew": Method(),
    "ew, as many parameters": Method(hidden=47),
    "uw": Method(lambda: UncertaintyWeighting(_TASKS)),
    "pcgrad": Method(PCGradWeighting),
    "group_dro": Method(lambda: GroupDRO(_TASKS, eta=0.01)),
    "outlier_weights": Method(lambda: OutlierWeighting(_TASKS)),
    "r_mtgb": Method(sharing=OutlierGate),
    "r_mtgb, pcgrad": Method(PCGradWeighting, OutlierGate),
    "stl": Method(sharing=SeparateNetworks),
}
ORACLE = "oracle: ew without the outliers"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
DRAWN = ("ew", "uw", "pcgrad", "group_dro", "r_mtgb", ORACLE)


def run(case: Case, method: Method, share: float, seed: int, *, oracle: bool) -> dict[str, Any]:
    """Trains once.

    Returns:
        Test errors of all tasks, and where there is a gate, scores and what was found.
    """
    count = round(share * _TASKS)
    train, test = make_tasks(
        seed,
        tasks=_TASKS,
        outliers=count,
        kind=case.kind,
        features=_FEATURES,
        train=_TRAIN + _VAL,
        test=_TEST,
        noise=0.1,
    )
    names = [f"task{t}" for t in range(_TASKS - count if oracle else _TASKS)]
    place = np.arange(len(train.y)) % (_TRAIN + _VAL)
    fit, val, held = (
        _batch(names, data.x[rows], data.y[rows], data.task[rows])
        for data, rows in ((train, place < _TRAIN), (train, place >= _TRAIN), (test, slice(None)))
    )
    torch.manual_seed(seed)
    model, tasks = _network(names, case, method)
    balancer = Balancer(method.combine())
    groups = [*optimizer_groups(model), {"params": list(balancer.parameters())}]
    optimizer = torch.optim.Adam([g for g in groups if g["params"]], lr=_LR)
    best = torch.full((len(names),), torch.inf)
    errors = torch.full((len(names),), torch.nan)
    for step in range(_STEPS):
        optimizer.zero_grad()
        balancer.backward(Step.evaluate(model, tasks, fit, needs=balancer.needs))
        optimizer.step()
        if step % _EVERY == _EVERY - 1:
            now, then = _errors(model, val), _errors(model, held)
            errors = torch.where(now < best, then, errors)
            best = torch.minimum(now, best)
    result: dict[str, Any] = {"errors": errors.tolist(), "outliers": count}
    return result | _detected(model, balancer, names, count)


def _network(names: list[str], case: Case, method: Method) -> tuple[MultiTaskModel, list[Task]]:
    sharing = method.sharing()
    hidden = [method.hidden, method.hidden]
    backbone = sharing.backbone(lambda: MLP(_FEATURES, hidden, bottleneck=case.width))
    common = nn.Linear(case.width, 1)
    heads = [common if case.tied else nn.Linear(case.width, 1) for _ in names]
    tasks = [Task(n, sharing.head(h), MSE()) for n, h in zip(names, heads, strict=True)]
    return MultiTaskModel(backbone, tasks), tasks


def _batch(
    names: list[str], x: np.ndarray, y: np.ndarray, task: np.ndarray
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rows = [task == t for t in range(len(names))]
    inputs = {n: torch.from_numpy(x[r]).float() for n, r in zip(names, rows, strict=True)}
    targets = {n: torch.from_numpy(y[r]).float()[:, None] for n, r in zip(names, rows, strict=True)}
    return inputs, targets


@torch.no_grad()
def _errors(model: MultiTaskModel, batch: tuple[dict[str, Tensor], dict[str, Tensor]]) -> Tensor:
    inputs, targets = batch
    predictions = model(inputs).predictions
    return torch.stack([(predictions[n] - targets[n]).square().mean() for n in targets])


def _detected(
    model: MultiTaskModel, balancer: Balancer, names: list[str], count: int
) -> dict[str, Any]:
    shares = gates(model.heads)
    if isinstance(balancer.combine, OutlierWeighting):
        inside = (-balancer.combine.theta).sigmoid()
        shares = {n: torch.stack([i, 1 - i]) for n, i in zip(names, inside, strict=True)}
    if not shares:
        return {}
    scores = outlier_scores(torch.stack(list(shares.values()))).tolist()
    found = [names.index(name) for name in outliers(shares)]
    truth = [t >= _TASKS - count for t in range(_TASKS)]
    auc = float(roc_auc_score(truth, scores)) if count else None
    exact = found == [t for t in range(_TASKS) if truth[t]]
    return {"scores": scores, "found": found, "auc": auc, "exact": exact}


def plan(
    cases: Sequence[str], shares: Sequence[float], seeds: int
) -> Iterator[tuple[str, str, float, int]]:
    """All runs: case, method, share of outliers, seed."""
    for case, share, seed in itertools.product(cases, shares, range(seeds)):
        for method in (*METHODS, ORACLE):
            if share > 0 or method != ORACLE:
                yield case, method, share, seed


def tables(runs: list[dict[str, Any]]) -> Iterator[Table]:
    """Errors relative to equal weighting, and detection, a table each a case."""
    by = _by_key(runs)
    shares = sorted({r["share"] for r in runs})
    for case in sorted({r["case"] for r in runs}):
        for title, tasks in (("related tasks", _related), ("outlier tasks", _outlying)):
            if case == "noise" and tasks is _outlying:
                continue  # nothing to be learned there
            rows = [
                [method, *(_cell(_ratios(by, case, method, share, tasks)) for share in shares)]
                for method in (*METHODS, ORACLE)
            ]
            heading = f"{case}: squared error of the {title}, relative to {_REFERENCE}, by share"
            columns = ["method", *(f"{share:.0%}" for share in shares)]
            yield Table(f"{case} {title}", heading, columns, rows)
    yield _detection(runs)


def _by_key(runs: list[dict[str, Any]]) -> dict[tuple, dict[str, Any]]:
    return {(r["case"], r["method"], r["share"], r["seed"]): r for r in runs}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Error of the related tasks over the share of outliers, a panel a case."""
    import matplotlib.pyplot as plt

    by, cases = _by_key(runs), [case for case in CASES if any(r["case"] == case for r in runs)]
    figure, axes = plt.subplots(
        1,
        len(cases),
        figsize=(3.2 * len(cases), 3.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, case in zip(axes[0], cases, strict=True):
        for method in DRAWN:
            points = {}
            for share in sorted({r["share"] for r in runs if r["case"] == case}):
                ratios = _ratios(by, case, method, share, _related)
                if ratios:
                    points[100 * share] = statistics.geometric_mean(ratios)
            style = "--" if method == ORACLE else "-"
            ax.plot(list(points), list(points.values()), style, marker="o", ms=3, label=method)
        ax.set(title=case, xlabel="outlier tasks (%)", yscale="log")
    axes[0][0].set_ylabel("error of related tasks / ew")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=80)


def alarms(cases: Sequence[str], seeds: int) -> str:
    """How often a task is accused where all are related."""
    lines = []
    for case in cases:
        found = [
            len(run(CASES[case], METHODS["r_mtgb"], 0.0, 1000 + seed, oracle=False)["found"])
            for seed in range(seeds)
        ]
        accused = sum(count > 0 for count in found)
        lines.append(f"{case}: {accused} of {seeds} runs accuse a task, {sum(found)} tasks in all")
    return "\n".join(lines)


def _related(run: dict[str, Any]) -> list[float]:
    return run["errors"][: _TASKS - run["outliers"]]


def _outlying(run: dict[str, Any]) -> list[float]:
    return run["errors"][_TASKS - run["outliers"] :]


def _ratios(by: dict, case: str, method: str, share: float, tasks: Callable) -> list[float]:
    """Errors over those of equal weighting with the same seed."""
    ratios = []
    for (c, m, s, seed), run in by.items():
        reference = by.get((case, _REFERENCE, share, seed))
        if (c, m, s) == (case, method, share) and reference is not None and tasks(run):
            ratios.append(statistics.fmean(tasks(run)) / statistics.fmean(tasks(reference)))
    return ratios


def _cell(ratios: list[float]) -> str:
    if not ratios:
        return "-"
    spread = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
    return f"{statistics.fmean(ratios):.2f} ± {spread:.2f}"


def _detection(runs: list[dict[str, Any]]) -> Table:
    """Area under the curve and how often exactly the outliers were found."""
    groups: dict[tuple, dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if "found" in run:
            groups[run["case"], run["method"]][run["share"]].append(run)
    shares = sorted({r["share"] for r in runs})
    rows = [
        [f"{case}, {method}", *(_found(own[share]) for share in shares)]
        for (case, method), own in sorted(groups.items())
    ]
    title = "Detection: area under the curve and exact sets; at 0%, runs that accuse nobody"
    columns = ["case, method", *(f"{share:.0%}" for share in shares)]
    return Table("detection", title, columns, rows)


def _found(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return "-"
    areas = [r["auc"] for r in runs if r["auc"] is not None]
    area = f"{statistics.fmean(areas):.2f}, " if areas else ""
    return f"{area}{sum(r['exact'] for r in runs)} of {len(runs)}"


def main() -> None:
    """Runs what is missing, or prints what there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs.jsonl"), help="a line a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of outliers")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run, from the i-th")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--table", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--plot", type=Path, help="draw the errors of the related tasks there")
    parser.add_argument("--alarms", type=int, help="seeds of runs without outliers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alarms:
        print(alarms(options.cases, options.alarms))
        return
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    runs = [json.loads(line) for line in lines]
    if options.table:
        for table in tables(runs):
            print(table.markdown() + "\n")
    if options.plot:
        draw(runs, options.plot)
    if options.table or options.plot:
        return
    done = {(r["case"], r["method"], r["share"], r["seed"]) for r in runs}
    start, stride = map(int, options.part.split("/"))
    keys = plan(options.cases, options.shares, options.seeds)
    for key in itertools.islice(keys, start, None, stride):
        if key not in done:
            case, method, share, seed = key
            chosen = METHODS.get(method, METHODS[_REFERENCE])
            result = run(CASES[case], chosen, share, seed, oracle=method == ORACLE)
            line = {"case": case, "method": method, "share": share, "seed": seed, **result}
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
