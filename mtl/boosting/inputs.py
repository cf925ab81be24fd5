"""From what users pass to arrays: features, task labels, categories."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import check_array, column_or_1d

Floats = NDArray[np.float64]


def is_frame(x: Any) -> bool:
    """Whether `x` is a pandas DataFrame, without importing pandas."""
    return hasattr(x, "iloc") and hasattr(x, "columns")


def refuse_sparse(x: Any, name: str) -> None:
    """Raises TypeError for a sparse matrix."""
    if sparse.issparse(x):
        raise TypeError(
            f"{name} takes dense X, got the sparse {type(x).__name__}; pass X.toarray()."
        )


def as_table(x: Any, name: str) -> Any:
    """A DataFrame as it is, anything else as a 2-D array of numbers or objects."""
    if is_frame(x) or _is_plain(x):
        return x
    kind = np.asarray(x).dtype.kind if not hasattr(x, "dtype") else x.dtype.kind
    dtype = None if kind in "OUS" else [np.float64, np.float32]
    return check_array(x, dtype=dtype, ensure_all_finite="allow-nan", estimator=name)


def _is_plain(x: Any) -> bool:
    """Whether `check_array`, which takes longer than a small prediction, would change nothing."""
    floats = type(x) is np.ndarray and x.dtype == np.float64 and x.ndim == 2 and x.size > 0
    return floats and not np.isinf(x).any()


def split_task_column(x: Any, column: str | int | None) -> tuple[Any, Any]:
    """The table without its task column, and that column (None without `column`).

    Raises:
        ValueError: There is no such column, or nothing else.
    """
    if column is None:
        return x, None
    count = x.shape[1]
    if is_frame(x) and column in x.columns:
        position = list(x.columns).index(column)
    elif isinstance(column, str):
        columns = list(x.columns) if is_frame(x) else f"none: X is a {type(x).__name__}"
        raise ValueError(f"task_column={column!r} is no column of X; its columns are {columns}.")
    elif not -count <= column < count:
        raise ValueError(f"task_column={column} does not exist: X has {count} columns.")
    else:
        position = column % count
    if count == 1:
        raise ValueError(
            "X has 1 feature(s), and that one is the task column; at least one more is needed."
        )
    keep = [i for i in range(count) if i != position]
    if is_frame(x):
        return x.iloc[:, keep], x.iloc[:, position]
    return x[:, keep], x[:, position]


def task_labels(task: Any, n: int) -> NDArray:
    """Labels [n] as an array; missing ones are all the same object.

    Raises:
        ValueError: Another length.
    """
    labels = np.asarray(task)
    if labels.ndim != 1:
        labels = column_or_1d(labels)
    if len(labels) != n:
        raise ValueError(f"task has {len(labels)} labels for {n} rows of X; pass one a row.")
    if labels.dtype.kind not in "Of":
        return labels
    missing = np.array([_is_missing(label) for label in labels.tolist()], dtype=bool)
    if missing.any():
        warnings.warn(
            f"{missing.sum()} of {n} rows have no task label: they form a task of their own.",
            UserWarning,
            stacklevel=4,
        )
        labels = labels.astype(object)
        labels[missing] = None
    return labels


class TaskIndex:
    """Task labels and their numbers 0 .. T-1.

    Attributes:
        labels: Sorted labels [T], the missing one (None) last.
        number: Number of each of them [T]; as sorted, until `renumber`.
    """

    def __init__(self, labels: NDArray) -> None:
        try:
            found = set(labels.tolist())
        except TypeError:
            raise TypeError("task labels: the argument must be a string or a number.") from None
        try:
            ordered = sorted(found - {None})
        except TypeError:
            kinds = sorted({type(label).__name__ for label in found})
            raise ValueError(
                f"task labels mix the types {', '.join(kinds)}; use one type."
            ) from None
        ordered += [None] * (None in found)
        self.labels = np.array(ordered, dtype=labels.dtype)
        self.number = np.arange(len(ordered))

    def renumber(self, key: Floats) -> None:
        """Numbers the tasks by ascending rows of `key` [T, k], which are in the present order."""
        rank = np.argsort(np.lexsort(key.T[::-1]))
        self.number = rank[self.number]

    def __call__(self, labels: NDArray) -> NDArray[np.int64]:
        """Number of each label [n]; -1 for labels that are not known."""
        if labels.dtype.kind in "iu" and self.labels.dtype.kind in "iu":
            place = np.searchsorted(self.labels, labels)
            place[place == len(self.labels)] = 0
            return np.where(self.labels[place] == labels, self.number[place], -1)
        lookup = dict(zip(self.labels.tolist(), self.number.tolist(), strict=True))
        return np.array([lookup.get(label, -1) for label in labels.tolist()], dtype=np.int64)


class FeatureEncoder:
    """Features as floats: categories become numbers, missing and unknown ones NaN.

    Args:
        categorical: "auto" for the DataFrame columns of dtype category, object, string or bool;
            else names, positions or a mask.
    """

    def __init__(self, categorical: str | Sequence[str | int | bool] | None) -> None:
        self.requested = categorical

    def fit(self, x: Any) -> FeatureEncoder:
        """Learns the categories of a table without its task column."""
        self.categorical = self._mask(x)
        self.categories = {
            j: {label: i for i, label in enumerate(_categories(_column(x, j)))}
            for j in np.flatnonzero(self.categorical).tolist()
        }
        return self

    def transform(self, x: Any) -> Floats:
        """Floats [n, d], in column order.

        Raises:
            ValueError: A column is not numeric and not categorical, or has infinite values.
        """
        if not is_frame(x) and x.dtype.kind == "f" and not self.categories:
            return x
        out = np.empty(x.shape, dtype=np.float64, order="F")
        for j in range(x.shape[1]):
            column = _column(x, j)
            if j in self.categories:
                lookup = self.categories[j]
                out[:, j] = [lookup.get(label, np.nan) for label in _plain(column)]
            else:
                out[:, j] = _numbers(column, x.columns[j] if is_frame(x) else j)
        return out

    def _mask(self, x: Any) -> NDArray[np.bool_]:
        count = x.shape[1]
        mask = np.zeros(count, dtype=bool)
        if self.requested is None:
            return mask
        if isinstance(self.requested, str):
            if self.requested != "auto":
                raise ValueError(
                    f"categorical_features={self.requested!r}: expected 'auto', None, or a list."
                )
            if is_frame(x):
                numeric = [_is_numeric(dtype) for dtype in x.dtypes]
                mask = ~np.array(numeric, dtype=bool)
            return mask
        requested = np.asarray(self.requested)
        if requested.dtype == bool:
            if len(requested) != count:
                raise ValueError(
                    f"categorical_features is a mask of {len(requested)} entries for {count} "
                    "features (the task column does not count)."
                )
            return requested
        for name in requested.tolist():
            mask[self._position(x, name)] = True
        return mask

    @staticmethod
    def _position(x: Any, name: str | int) -> int:
        if is_frame(x) and name in x.columns:
            return list(x.columns).index(name)
        if isinstance(name, int) and 0 <= name < x.shape[1]:
            return name
        names = list(x.columns) if is_frame(x) else f"0..{x.shape[1] - 1}"
        raise ValueError(f"categorical_features: there is no feature {name!r}, only {names}.")


def _is_numeric(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "iuf" and str(dtype) != "category"


def _column(x: Any, j: int) -> Any:
    return x.iloc[:, j] if is_frame(x) else x[:, j]


def _plain(column: Any) -> list:
    """Python values; missing ones are None."""
    values = np.asarray(column, dtype=object).tolist()
    return [None if _is_missing(value) else value for value in values]


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    same = value == value  # NaN differs from itself, pandas.NA from everything
    return not isinstance(same, bool | np.bool_) or not same


def _categories(column: Any) -> list:
    values = set(_plain(column)) - {None}
    return sorted(values, key=lambda value: (type(value).__name__, value))


def _numbers(column: Any, name: Any) -> Floats:
    if hasattr(column, "to_numpy") and _is_numeric(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        try:
            values = np.asarray(column, dtype=np.float64)
        except ValueError:
            raise ValueError(
                f"feature {name!r} is not numeric; convert it, or name it in categorical_features."
            ) from None
    if np.isinf(values).any():
        raise ValueError(f"feature {name!r} contains infinity; replace it by a number or NaN.")
    return values
