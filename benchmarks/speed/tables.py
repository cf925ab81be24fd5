"""Tables for the terminal, and for documents that are rewritten by the command that measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.speed.timing import Ratio


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first column is a name, the others are figures.

    Attributes:
        name: What the marks around it in a document say.
        title: Stands above it.
        columns: Their heads.
        rows: One cell a column.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As GitHub renders it."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])

    def show(self, console: Console) -> None:
        """On the terminal."""
        table = RichTable(title=self.title, box=box.SIMPLE)
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)


def spread(ratio: Ratio) -> str:
    """Median and quartiles."""
    return f"{ratio.middle:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def section(text: str, name: str) -> re.Match[str]:
    """What stands between the marks `<!-- speed: name -->` and `<!-- speed: end -->`.

    Raises:
        SystemExit: There are no such marks.
    """
    marks = rf"(?<=<!-- speed: {re.escape(name)} -->\n)(.*?)(?=<!-- speed: end -->)"
    match = re.search(marks, text, re.DOTALL)
    if match is None:
        raise SystemExit(
            f"Expected `<!-- speed: {name} -->` and `<!-- speed: end -->`, each on a line of its "
            "own, around what is to be rewritten. Got a file without them."
        )
    return match


def rewrite(path: Path, name: str, content: str) -> None:
    """Puts new content between the marks of a document."""
    text = path.read_text()
    old = section(text, name)
    path.write_text(f"{text[: old.start()]}{content}\n{text[old.end() :]}")
