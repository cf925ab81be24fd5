"""The three blocks of robust multi-task gradient boosting, on binned features.

F_t(x) = start + F_shared(x) + (1 - s_t) F_non(x) + s_t F_out(x) + F_t,own(x)

with the gate s_t = sigmoid(theta_t). Block 1 boosts F_shared on all rows; block 2 boosts F_out and
F_non on residuals weighted by s_t and 1 - s_t and takes a step of theta in each iteration; block 3
boosts F_t,own on each task alone. Rows are sorted by task, so that nothing loops over tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mtl.boosting.binning import Codes
from mtl.boosting.gates import GateStep
from mtl.boosting.tables import StumpTable, total
from mtl.boosting.trees import Growth, Trees

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What the blocks need to know; see the estimators for the meaning.

    Attributes:
        rounds: Largest number of iterations of the shared, gated and task block.
        growth: Of the trees of the shared and gated blocks.
        growth_task: Of the trees of the task block.
        newton: Whether leaves divide by curvatures (rather than count rows).
        gate_step: Step of the gate.
        gate_spread: Standard deviation of the initial theta.
        subsample: Share of the rows that each iteration sees.
        max_features: Share of the features that each iteration sees.
        bins_task: Largest number of bins in the task block.
        task_as_category: Whether the shared block may split on the task.
        patience: Iterations without improvement after which a block ends; None for no stopping.
        held_out: Share of each task's rows that early stopping looks at.
        refit: Whether the rounds found by early stopping are fitted again on all rows.
        seed: Every draw is a function of it, the block and the iteration.
    """

    rounds: tuple[int, int, int]
    growth: Growth
    growth_task: Growth
    newton: bool
    gate_step: GateStep
    gate_spread: float
    subsample: float
    max_features: float
    bins_task: int
    task_as_category: bool
    patience: int | None
    held_out: float
    refit: bool
    seed: int


@dataclass
class Ensemble:
    """A fitted model on binned features.

    Attributes:
        start: Constant [K].
        shared, gated, own: Trees of each iteration; `gated` holds F_out's and F_non's as trees 0
            and 1, `own` one a task.
        theta: [T].
        theta_history: [iterations + 1, T].
        gate_effect: Loss that each task would gain with the median gate, [T]; see `Fitting`.
        task_rounds: Iterations of the task block that count, [T].
        gate, table, rest: Gates [T + 1] with the median last, stumps, and the trees of each block
            that are none; from `compile`.
    """

    start: Floats
    theta: Floats
    task_as_category: bool
    shared: list[Trees] = field(default_factory=list)
    gated: list[Trees] = field(default_factory=list)
    own: list[Trees] = field(default_factory=list)
    theta_history: list[Floats] = field(default_factory=list)
    gate_effect: Floats = field(default_factory=lambda: np.zeros(0))
    task_rounds: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    gate: Floats = field(init=False)
    table: StumpTable = field(init=False)
    rest: tuple[list[Trees], list[Trees], list[Trees]] = field(init=False)

    def keep_task_rounds(self, rounds: Ints) -> None:
        """Ends the task block of each task after its own number of iterations [T]."""
        self.task_rounds = rounds
        del self.own[rounds.max(initial=0) :]
        for i, trees in enumerate(self.own):
            trees.leaves[rounds <= i] = 0

    def compile(self, sizes: Ints) -> None:
        """Makes the ensemble ready for predictions, on features of so many bins [d]."""
        gate = expit(self.theta)
        self.gate = np.append(gate, np.median(gate))
        self.table = StumpTable(sizes, len(self.theta), self.start)
        self.rest = (
            self.table.absorb(self.shared, np.ones_like(self.gate)),
            self.table.absorb(self.gated, self.gate, 1 - self.gate),
            self.table.absorb(self.own),
        )

    def stages(self, codes: Codes, task: Ints) -> Iterator[Floats]:
        """Raw predictions [K, n] after each iteration, with the final gates.

        The array is the same each time: copy what is kept. The arguments are those of `predict`.
        """
        raw = np.repeat(self.start[:, None], len(codes), axis=1)
        gate, known = self.gate[task], _known(task)
        with_tasks = self._with_tasks(codes, task)
        for trees in self.shared:
            raw += trees.predict(with_tasks.values, 0)
            yield raw
        for trees in self.gated:
            raw += gate * trees.predict(codes.values, 0)
            raw += (1 - gate) * trees.predict(codes.values, 1)
            yield raw
        bins, tasks = codes.values[:, known], task[known]
        for trees in self.own:
            raw[:, known] += trees.predict(bins, tasks)
            yield raw

    def predict(self, codes: Codes, task: Ints) -> Floats:
        """Raw predictions [K, n].

        Args:
            codes: Binned features.
            task: Number of each row's task [n]; -1 for a task that was not there in `fit`, which
                gets the median gate and no trees of its own.
        """
        shared, gated, own = self.rest
        raw = self.table.predict(codes, task)
        if shared:
            raw += total(shared, self._with_tasks(codes, task).values, 0)
        if gated:
            gate = self.gate[task]
            raw += gate * total(gated, codes.values, 0)
            raw += (1 - gate) * total(gated, codes.values, 1)
        if own:
            known = _known(task)
            raw[:, known] += total(own, codes.values[:, known], task[known])
        return raw

    def _with_tasks(self, codes: Codes, task: Ints) -> Codes:
        """The features of the shared block."""
        return with_task(codes, task) if self.task_as_category else codes


def _known(task: Ints) -> Ints | slice:
    """The rows of known tasks."""
    return slice(None) if (task >= 0).all() else np.flatnonzero(task >= 0)


def with_task(codes: Codes, task: Ints) -> Codes:
    """The features and, as one more category, the number of the task (-1 counts as missing)."""
    size = max(int(task.max(initial=0)) + 2, 2)
    dtype = np.promote_types(codes.values.dtype, np.uint8 if size <= 256 else np.uint16)
    return Codes(
        np.concatenate([codes.values.astype(dtype, copy=False), (task + 1).astype(dtype)[None]]),
        np.append(codes.sizes, size),
        np.append(codes.categorical, True),
        np.append(codes.missing, False),
    )
