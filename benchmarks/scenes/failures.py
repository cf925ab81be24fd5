"""Errors of this package.

The framework is imported only when one is raised: its import takes seconds, which every drawing
process would pay at its start.
"""

from __future__ import annotations


def config_error(message: str) -> Exception:
    """A `mtl.errors.ConfigError`, which is a ValueError, to raise for a bad argument."""
    from mtl.errors import ConfigError

    return ConfigError(message)


def data_error(message: str) -> Exception:
    """A `mtl.errors.DataError` to raise for data that is missing or not in its form."""
    from mtl.errors import DataError

    return DataError(message)
