"""One table of a comparison, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from mtl.report.sweep.comparison import Comparison, Method

_MISSING = "-"


class Cell(NamedTuple):
    """A value, and its standard deviation over seeds if there are several."""

    value: float | None
    deviation: float | None = None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        group: Task, or empty.
        name: Title within the group.
        higher: Whether higher is better; `None` if neither is.
        digits: After the decimal point.
        cells: One a method.
        best: Index of the best method, the single tasks aside; `None` if several are.
    """

    group: str
    name: str
    higher: bool | None
    digits: int
    cells: list[Cell]
    best: int | None

    @property
    def title(self) -> str:
        """Group and name."""
        return f"{self.group} {self.name}".strip()

    @property
    def arrow(self) -> str:
        """Which direction is better."""
        return "" if self.higher is None else "↑" if self.higher else "↓"

    def text(self, index: int) -> str:
        """A cell as text."""
        value, deviation = self.cells[index]
        if value is None:
            return _MISSING
        shown = _fixed(value, self.digits)
        return shown if deviation is None else f"{shown} ± {deviation:.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """Methods by columns."""

    methods: list[Method]
    seeds: list[str]
    columns: list[Column]


def tabulate(comparison: Comparison) -> Table:
    """The table of a comparison: metrics, deltas, rank, time a step, memory."""
    methods = comparison.methods
    columns = [
        _column(m.task, m.name, higher, [_cell(method.column(m)) for method in methods], methods)
        for m, higher in comparison.directions.items()
    ]
    for name, higher in (("delta_m", False), ("delta_p", True)):
        cells = [_cell(list(method.deltas.get(name, {}).values())) for method in methods]
        columns.append(_column("", f"{name} (%)", higher, cells, methods, 2))
    if comparison.reference and "delta_p" not in comparison.reference.deltas:
        cells = [_cell(list(method.gains.values())) for method in methods]
        title = f"gain over {comparison.reference.label} (%)"
        columns.append(_column("", title, True, cells, methods, 2))
    columns.append(_single("mean rank", lambda method: method.rank, methods, 2))
    beside = comparison.reference.label if comparison.reference else "reference"
    columns.append(_single(f"time / {beside}", lambda method: method.time, methods, 2))
    columns.append(_single("memory (MB)", _megabytes, methods, 0))
    kept = [c for c in columns if any(cell.value is not None for cell in c.cells)]
    return Table(methods, [_seeds(method) for method in methods], kept)


def markdown(table: Table) -> str:
    """A Markdown table; the best value of a column is bold."""
    header = ["method", "seeds", *(f"{c.title} {c.arrow}".strip() for c in table.columns)]
    lines = [_line(header), _line(["---"] * len(header))]
    for index, method in enumerate(table.methods):
        cells = [
            f"**{column.text(index)}**" if column.best == index else column.text(index)
            for column in table.columns
        ]
        lines.append(_line([f"`{method.label}`", table.seeds[index], *cells]))
    return "\n".join(lines)


def rows(comparison: Comparison, table: Table) -> list[dict[str, object]]:
    """Rows of a CSV file, unrounded."""
    found = []
    for index, method in enumerate(table.methods):
        row: dict[str, object] = {
            "dataset": comparison.dataset,
            "protocol": comparison.protocol,
            "method": method.label,
            "seeds": len(method.values),
            "failed": len(method.failed),
            "baseline": comparison.source,
        }
        for column in table.columns:
            row[column.title], row[f"{column.title} sd"] = column.cells[index]
        found.append(row)
    return found


def write_csv(all_rows: Sequence[dict[str, object]]) -> str:
    """A CSV file of all comparisons."""
    names = dict.fromkeys(name for row in all_rows for name in row)
    file = io.StringIO()
    used = [name for name in names if any(row.get(name) is not None for row in all_rows)]
    writer = csv.DictWriter(file, used, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(all_rows)
    return file.getvalue()


def latex(comparison: Comparison, table: Table) -> str:
    """A table for papers (package booktabs): tasks above their metrics, the best value bold."""
    groups: list[tuple[str, int]] = []
    for column in table.columns:
        if groups and groups[-1][0] == column.group and column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    above = [rf"\multicolumn{{{n}}}{{c}}{{{_tex(group)}}}" if group else "" for group, n in groups]
    rules, start = [], 2
    for group, n in groups:
        rules += [rf"\cmidrule(lr){{{start}-{start + n - 1}}}"] if group else []
        start += n
    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}
    below = [_tex(column.name) + arrows[column.arrow] for column in table.columns]
    lines = [
        f"% {comparison.title}, protocol {comparison.protocol}. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["", *above]) + r" \\",
        " ".join(rules),
        " & ".join(["Method", *below]) + r" \\",
        r"\midrule",
    ]
    for index, method in enumerate(table.methods):
        cells = [_tex_cell(column, index) for column in table.columns]
        lines.append(" & ".join([_tex(method.label), *cells]) + r" \\")
        if method.single:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _column(
    group: str,
    name: str,
    higher: bool | None,
    cells: list[Cell],
    methods: list[Method],
    digits: int | None = None,
) -> Column:
    values = {i: cell.value for i, cell in enumerate(cells) if cell.value is not None}
    if digits is None:
        largest = max((abs(value) for value in values.values()), default=1.0) or 1.0
        digits = min(8, max(0, 3 - math.floor(math.log10(largest))))
    contending = {i: value for i, value in values.items() if not methods[i].single}
    best = None
    if higher is not None and len(contending) > 1:
        top = (max if higher else min)(contending.values())
        reached = [i for i, value in contending.items() if value == top]
        best = reached[0] if len(reached) == 1 else None
    return Column(group, name, higher, digits, cells, best)


def _single(
    name: str, value: Callable[[Method], float | None], methods: list[Method], digits: int
) -> Column:
    cells = [Cell(value(method)) for method in methods]
    return _column("", name, False, cells, methods, digits)


def _cell(values: Sequence[float]) -> Cell:
    if not values:
        return Cell(None)
    return Cell(fmean(values), stdev(values) if len(values) > 1 else None)


def _seeds(method: Method) -> str:
    count, lost = len(method.values), len(method.failed)
    if not count:
        return "failed"
    return f"{count}, {lost} failed" if lost else str(count)


def _megabytes(method: Method) -> float | None:
    return None if method.memory is None or method.single else method.memory / 1e6


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # never -0.00


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _tex_cell(column: Column, index: int) -> str:
    value, deviation = column.cells[index]
    if value is None:
        return "--"
    shown = _fixed(value, column.digits)
    if column.best == index:
        shown = rf"\mathbf{{{shown}}}"
    if deviation is not None:
        shown += rf"_{{\pm {deviation:.{column.digits}f}}}"
    return f"${shown}$"


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda m: special.get(m[0], "\\" + m[0]), text)
