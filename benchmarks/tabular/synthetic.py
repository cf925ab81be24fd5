"""Tasks from random Fourier features, some of which follow another law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
OutlierKind = Literal["function", "flip", "noise", "adversarial"]
OUTLIER_KINDS: tuple[OutlierKind, ...] = get_args(OutlierKind)

_LOUDNESS = 3.0


@dataclass(frozen=True, eq=False)
class ManyTasks:
    """Rows of many tasks.

    Attributes:
        x: Features [n, d], uniform in [-1, 1].
        y: Targets [n].
        task: Task number of each row [n], ascending.
        outlier: Which tasks are outliers [T].
    """

    x: Floats
    y: Floats
    task: NDArray[np.int64]
    outlier: NDArray[np.bool_]


def make_tasks(
    seed: int,
    *,
    tasks: int = 10,
    outliers: int = 2,
    kind: str = "function",
    features: int = 5,
    train: int = 300,
    test: int = 1000,
    noise: float = 0.0,
    own: float = 0.1,
) -> tuple[ManyTasks, ManyTasks]:
    """The data of the R-MTGB paper's study, with more kinds of outliers.

    A regular task t is y = (1 - own) c(x) + own f_t(x), where c is common and f_t the task's own;
    all functions are draws f(x) = sqrt(2 / N) sum_j w_j cos(omega_j . x / l + b_j) with N = 500,
    w, omega ~ N(0, 1), b ~ U(0, 2 pi) and l = features / 4. The last tasks are the outliers:

    * `function`: another common function in place of c, the same for all outliers (the paper's);
    * `flip`: -c;
    * `noise`: independent noise with three times c's standard deviation;
    * `adversarial`: -3 c, opposed and loud.

    Args:
        seed: Every number is a function of it.
        tasks: Number of tasks T.
        outliers: Number of outliers among them.
        kind: What outliers follow.
        features: d.
        train: Training rows a task.
        test: Test rows a task.
        noise: Standard deviation of noise on all targets.
        own: Share of the task's own function.

    Returns:
        Training and test rows.

    Raises:
        ValueError: More outliers than tasks, or another kind.
    """
    if not 0 <= outliers <= tasks:
        raise ValueError(f"outliers={outliers}: expected 0 to tasks={tasks}.")
    if kind not in OUTLIER_KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {OUTLIER_KINDS}.")
    random = np.random.default_rng(seed)
    common, other = fourier_function(random, features), fourier_function(random, features)
    outlier = np.arange(tasks) >= tasks - outliers
    parts = []
    for t in range(tasks):
        specific = fourier_function(random, features)
        x = random.uniform(-1, 1, (train + test, features))
        if not outlier[t]:
            law = common(x)
        elif kind == "function":
            law = other(x)
        elif kind == "noise":
            law = _LOUDNESS * common(x).std() * random.standard_normal(len(x))
        else:
            law = -common(x) * (_LOUDNESS if kind == "adversarial" else 1.0)
        y = (1 - own) * law + own * specific(x) + noise * random.standard_normal(len(x))
        parts.append((x, y))
    return (
        _rows(parts, slice(None, train), outlier),
        _rows(parts, slice(train, None), outlier),
    )


def fourier_function(
    random: np.random.Generator, features: int, terms: int = 500
) -> Callable[[Floats], Floats]:
    """A smooth random function of [n, d] with values of standard deviation about 1."""
    frequency = random.standard_normal((features, terms)) / (0.25 * features)
    phase = random.uniform(0, 2 * np.pi, terms)
    weight = np.sqrt(2 / terms) * random.standard_normal(terms)
    return lambda x: np.cos(x @ frequency + phase) @ weight


def _rows(parts: list[tuple[Floats, Floats]], rows: slice, outlier: NDArray[np.bool_]) -> ManyTasks:
    x = np.concatenate([x[rows] for x, _ in parts])
    y = np.concatenate([y[rows] for _, y in parts])
    task = np.repeat(np.arange(len(parts)), [len(y[rows]) for _, y in parts])
    return ManyTasks(x, y, task, outlier)
