"""The cost columns of the README's method table: measured for every preset, then written there.

The columns are found by their heads, rows by the preset's name. A preset that has not been
measured, or does not fit a plain network, shows a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.speed.gradients import Run
from benchmarks.speed.memory import beyond_equal_weighting
from benchmarks.speed.methods import OURS, preset, preset_names, warmed_up
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.tables import Table, rewrite, section
from benchmarks.speed.timing import Contender, Times, interleave, timed
from mtl.errors import MTLError

SECTION = "costs"
COLUMNS = ("passes", *OURS)
UNKNOWN = "\N{EN DASH}"
_FEW, _MANY = "W1", "W3"
_PERIOD = 4


class Figure(NamedTuple):
    """Cost of a preset at one level.

    Attributes:
        few: Time of a step on the network with few tasks, relative to `ew`.
        many: The same with many tasks.
        memory: Peak beyond `ew` with many tasks, in numbers a shared parameter.
    """

    few: float
    many: float
    memory: float

    def __str__(self) -> str:
        """As in the table."""
        return f"{_digits(self.few)} / {_digits(self.many)} / {self.memory:.0f} P"


def tables(rounds: int) -> Iterator[Table]:
    """The columns by themselves."""
    times = {network: _times(network, rounds) for network in (_FEW, _MANY)}
    cases = [(_MANY, name, level) for name in preset_names() for level in OURS]
    memory = beyond_equal_weighting(cases)
    rows = []
    for name in preset_names():
        row = [f"`{name}`", _passes(name)]
        for level in OURS:
            known = [t for t in times.values() if f"{name}, {level}" in t.seconds]
            extra = memory[_MANY, name, level]
            if len(known) == len(times) and extra is not None:
                few, many = (t.ratio(f"{name}, {level}", "ew, parameters").middle for t in known)
                row.append(str(Figure(few, many, extra)))
            else:
                row.append(UNKNOWN)
        rows.append(row)
    yield Table(SECTION, "Cost of a step", ["name", *COLUMNS], rows)


def write(path: Path, table: Table) -> None:
    """Puts the figures into the method table of a document."""
    rewrite(path, SECTION, fill(section(path.read_text(), SECTION)[0].strip("\n"), table))


def fill(document: str, table: Table) -> str:
    """The method table with the figures of `table` in its cost columns.

    Args:
        document: The Markdown table, from its head to its last row.
        table: What was measured; rows that are not in it get dashes.
    """
    head, rule, *rows = map(cells, document.splitlines())
    figures = {row[0]: row[1:] for row in table.rows}
    for row in rows:
        row += [""] * (len(head) - len(row))
        measured = figures.get(row[0], [UNKNOWN] * len(COLUMNS))
        for column, figure in zip(COLUMNS, measured, strict=True):
            row[head.index(column)] = figure
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def cells(line: str) -> list[str]:
    """The cells of one line of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _times(network: str, rounds: int) -> Times:
    """Steps of all presets that fit the network, at both levels."""
    problem = NETWORKS[network][1]()
    contenders = {}
    for name in preset_names():
        for level in OURS:
            try:
                contenders[f"{name}, {level}"] = _steps(warmed_up(problem, name, level))
            except MTLError as error:
                print(f"{name}, {level}: {error}")
    return interleave(contenders, rounds=rounds, warmup=0)


def _steps(run: Run) -> Contender:
    """Seconds of some steps in a row, as some presets do more in every fourth."""

    def steps() -> None:
        for _ in range(_PERIOD):
            run()

    return timed(steps)


def _passes(name: str) -> str:
    """Passes back through the backbone at the parameter level, as a function of T."""
    counts: list[tuple[int, int]] = []
    sizes = []
    for network in (_FEW, _MANY):
        problem = NETWORKS[network][1]()
        try:
            counts.append(problem.passes(preset(name, problem.num_tasks, "parameters")))
        except MTLError:
            return UNKNOWN
        sizes.append(problem.num_tasks)
    forward, backward = ([count[i] for count in counts] for i in (0, 1))
    again = "" if forward == [1, 1] else f", {_formula(sizes, forward)} forward"
    return _formula(sizes, backward) + again


def _formula(sizes: Sequence[int], counts: Sequence[int]) -> str:
    """`a T + b` through two points."""
    slope = (counts[1] - counts[0]) / (sizes[1] - sizes[0])
    rest = counts[0] - slope * sizes[0]
    if not slope:
        return f"{rest:g}"
    multiple = "T" if slope == 1 else f"{slope:.3g} T"
    return multiple if not rest else f"{multiple} {'+' if rest > 0 else '-'} {abs(rest):.3g}"


def _digits(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 9.95 else f"{ratio:.1f}"
