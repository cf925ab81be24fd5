"""Which tasks conflict, how much, and in which layers."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from mtl.distributed import all_reduce
from mtl.errors import ConfigError, NonFiniteError, UnsupportedError
from mtl.linalg import cosines, gramian
from mtl.rows import Rows

if TYPE_CHECKING:
    from mtl.module import MTLModule
    from mtl.step import Step

ALL = "all"
"""Name of the row for all shared parameters together."""
STEPS_A_TASK = 25
"""The default interval, in steps for each task."""
COLUMNS = ("step", "layer", "task_a", "task_b", "cosine", "norm_a", "norm_b")


class Record(NamedTuple):
    """What was measured in one step.

    Attributes:
        step: Optimizer steps before it.
        tasks: Names of the tasks with labels, `a`.
        gramians: Inner products of their gradients, `[layers + 1, a, a]`; the last is of all
            shared parameters together.
    """

    step: int
    tasks: tuple[str, ...]
    gramians: Tensor


class Conflicts(NamedTuple):
    """Measures of how gradients of several tasks fit together.

    Attributes:
        conflict_rate: Share of the pairs with a negative cosine, in [0, 1].
        condition_number: Largest by smallest singular value of the matrix of gradients, >= 1;
            infinite where they are linearly dependent (Aligned-MTL, arXiv 2305.19000).
        magnitude_similarity: Mean over the pairs of `2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)`, in
            [0, 1], 1 for equal norms (PCGrad, arXiv 2001.06782).
    """

    conflict_rate: float
    condition_number: float
    magnitude_similarity: float

    @classmethod
    def of(cls, gram: Tensor) -> Conflicts:
        """From a Gramian, `[a, a]` with a >= 2."""
        gram = gram.double()
        i, j = torch.triu_indices(len(gram), len(gram), offset=1)
        squares = gram.diagonal().clamp_min(0)
        eigenvalues = torch.linalg.eigvalsh(gram)
        rounding = eigenvalues[-1] * len(gram) * torch.finfo(torch.float32).eps
        dependent = bool(eigenvalues[0] <= rounding)
        sums = squares[i] + squares[j]
        similar = 2 * (squares[i] * squares[j]).sqrt() / torch.where(sums > 0, sums, 1.0)
        return cls(
            conflict_rate=float((gram[i, j] < 0).double().mean()),
            condition_number=math.inf
            if dependent
            else float((eigenvalues[-1] / eigenvalues[0]).sqrt()),
            magnitude_similarity=float(similar.mean()),
        )


class Diagnose(lightning.Callback):
    """Records how the tasks' gradients agree, layer by layer, whatever the balancer does.

    In steps 0, n, 2n, ... the gradient of every task's loss by the shared parameters is taken, by
    one more backward pass a task (under accumulation for the first part of the step; with several
    processes for the joint batch). Losses are those of the tasks, before transforms. A step with
    labels of fewer than two tasks, or a loss that is not finite, leaves its turn to the next one.
    Written are

    * `diagnosis.csv`: for each such step, layer and pair of tasks the cosine and both norms; pairs
      of a task with itself carry its norm. A layer is a module of the backbone with parameters of
      its own, `all` is all of them. A cosine is 0 where a gradient is 0.
    * `diagnosis_layers.csv`, at the end: of each layer the share of conflicting pairs, the median
      condition number and the mean magnitude similarity (see `Conflicts`) and mean norms.

    Loggers get the measures of `all` as `diagnosis/...`. What it cost is printed after training.

    Args:
        path: The first file; the second is written beside it.
        every_n_steps: n, > 0. Default: 25 times the number of tasks, which keeps the cost below
            5% of training time: a pass back takes at most two thirds of a step, so T passes in
            25 T steps take 2.7%.

    It needs memory for T gradients. With sharded parameters (FSDP2), and where tasks share
    nothing, nothing is recorded, and a warning says so.

    Raises:
        ConfigError: `every_n_steps` is below 1.
    """

    def __init__(self, path: str | Path, every_n_steps: int | None = None) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise ConfigError(f"`every_n_steps` should be 1 or more. Got {every_n_steps}.")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self.records: list[Record] = []
        self.layers: list[str] = []
        self.seconds = 0.0
        self._started = 0.0
        self._off = False

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begins the file; that of a resumed run with what its checkpoint knows."""
        del pl_module
        self._started = time.perf_counter()
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(self.path, COLUMNS, self._rows(self.records))

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Measures, while the graph is there."""
        del loss
        module = cast("MTLModule", pl_module)
        step = module.step
        if step is None or not self._due(trainer, len(module.tasks)):
            return
        if len(step.present) < 2 or not step.all_finite:
            return
        started = time.perf_counter()
        try:
            record = self.measure(module.model, step, trainer.global_step)
        except (NonFiniteError, UnsupportedError) as error:
            self._off = isinstance(error, UnsupportedError)
            rank_zero_warn(f"No diagnosis of step {trainer.global_step}: {error}")
            return
        self.records.append(record)
        if trainer.is_global_zero:
            self.append(record)
            for logger in trainer.loggers:
                logger.log_metrics(_scalars(record), step=trainer.global_step)
        self.seconds += time.perf_counter() - started

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the measures by layer and prints the cost."""
        if not trainer.is_global_zero or not self.records:
            return
        _write(self.path.with_stem(f"{self.path.stem}_layers"), *self._summary())
        whole = time.perf_counter() - self._started
        pl_module.print(
            f"Diagnosis: {len(self.records)} steps, {self.seconds:.2f} s of {whole:.1f} s of "
            f"training ({self.seconds / whole:.1%}); {self.path}"
        )

    def state_dict(self) -> dict[str, Any]:
        """The records so far."""
        return {"layers": self.layers, "records": [tuple(record) for record in self.records]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the records of the interrupted run."""
        self.layers = list(state_dict["layers"])
        self.records = [Record(*record) for record in state_dict["records"]]

    def _due(self, trainer: lightning.Trainer, tasks: int) -> bool:
        every = self.every_n_steps or STEPS_A_TASK * tasks
        intervals = self.records[-1].step // every + 1 if self.records else 0
        return not self._off and trainer.global_step // every >= intervals

    def measure(self, model: nn.Module, step: Step, number: int = 0) -> Record:
        """Takes the gradients of a step, whose graph is kept.

        Args:
            model: Names the layers.
            step: Losses and parameters.
            number: Optimizer steps before it.

        Raises:
            UnsupportedError: Nothing is shared, or parameters are sharded.
            NonFiniteError: A gradient is not finite.
        """
        if not step.shared:
            raise UnsupportedError("The tasks share no parameters. Choose another `sharing`.")
        names = _layers_of(model, step.shared)
        self.layers = list(dict.fromkeys(names))
        return Record(number, step.present, self._gramians(step, names))

    def append(self, record: Record) -> None:
        """Adds a record to the file."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(self._rows([record]))

    def _gramians(self, step: Step, names: Sequence[str]) -> Tensor:
        """Of the layers and of all, `[layers + 1, a, a]`, on the CPU."""
        rows = Rows(step, "parameters", retain_graph=True)
        first = 0 if rows.share is None else rows.share.columns.start
        last = first + rows.jacobian.shape[1]
        number = {layer: i for i, layer in enumerate(self.layers)}
        tasks = len(step.present)
        result = torch.zeros(len(number) + 1, tasks, tasks, dtype=torch.float64)
        result = result.to(rows.jacobian.device)
        start = 0
        for name, parameter in zip(names, step.shared, strict=True):
            end = start + parameter.numel()
            block = slice(max(start, first) - first, min(end, last) - first)
            if block.start < block.stop:
                result[number[name]] += gramian(rows.jacobian[:, block])
            start = end
        result = all_reduce(result) / step.scale**2
        result[-1] = result[:-1].sum(0)
        result = result.cpu()
        if not result.isfinite().all():
            raise NonFiniteError(*step.present)
        return result

    def _rows(self, records: Sequence[Record]) -> Iterator[tuple[Any, ...]]:
        for step, tasks, gramians in records:
            for layer, gram in zip([*self.layers, ALL], gramians, strict=True):
                norms = [f"{norm:.6g}" for norm in gram.diagonal().sqrt().tolist()]
                values = cosines(gram).tolist()
                for i, task in enumerate(tasks):
                    for j in range(i, len(tasks)):
                        cosine = "1" if i == j else f"{values[i][j]:.6g}"
                        yield step, layer, task, tasks[j], cosine, norms[i], norms[j]

    def _summary(self) -> tuple[list[str], list[list[Any]]]:
        """Head and rows of the measures by layer."""
        tasks = list(dict.fromkeys(name for record in self.records for name in record.tasks))
        rows = []
        for k, layer in enumerate([*self.layers, ALL]):
            measured = [Conflicts.of(record.gramians[k]) for record in self.records]
            rates, conditions, similarities = zip(*measured, strict=True)
            values = [fmean(rates), median(conditions), fmean(similarities)]
            values += [self._mean_norm(k, task) for task in tasks]
            rows.append([layer, *(f"{value:.6g}" for value in values)])
        return ["layer", *Conflicts._fields, *(f"norm/{task}" for task in tasks)], rows

    def _mean_norm(self, layer: int, task: str) -> float:
        squares = [
            float(record.gramians[layer].diagonal()[record.tasks.index(task)])
            for record in self.records
            if task in record.tasks
        ]
        return fmean(map(math.sqrt, squares))


def _layers_of(model: nn.Module, shared: Sequence[Tensor]) -> list[str]:
    """The module that each shared parameter belongs to, as the backbone names it."""
    names = {id(p): name.removeprefix("backbone.") for name, p in model.named_parameters()}
    return [names[id(p)].rpartition(".")[0] or "backbone" for p in shared]


def _scalars(record: Record) -> dict[str, float]:
    gram = record.gramians[-1]
    norms = zip(record.tasks, gram.diagonal().sqrt().tolist(), strict=True)
    measures = Conflicts.of(gram)._asdict()
    return {f"diagnosis/norm/{task}": norm for task, norm in norms} | {
        f"diagnosis/{name}": value for name, value in measures.items()
    }


def _write(path: Path, head: Sequence[str], rows: Any) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
