"""Errors that a caller can fix; command lines print them without a traceback and exit with 2."""

from __future__ import annotations


class MTLError(Exception):
    """Base of the framework's own errors. The message names what, expected, got and remedy."""


class ConfigError(MTLError, ValueError):
    """An option is unknown, misspelt, or does not fit the others."""


class DataError(MTLError):
    """A data set is missing, incomplete or not in the expected form."""


class TaskError(MTLError, ValueError):
    """A task is defined inconsistently: names, heads, shapes or losses do not fit together."""


class NonFiniteError(MTLError, ArithmeticError):
    """The loss or gradient of some tasks is NaN or infinite.

    Args:
        tasks: Their names.
    """

    def __init__(self, *tasks: str) -> None:
        self.tasks = tasks
        super().__init__(
            f"Loss or gradient of {', '.join(tasks)} is not finite. Lower the learning rate, clip "
            "gradients, or check the data of that task."
        )


class UnsupportedError(MTLError, NotImplementedError):
    """A method needs something that this step, model or data set cannot give."""


def message_of(error: MTLError) -> str:
    """What to print: of an error in a loader's worker, the message without the worker's traceback.

    Args:
        error: In the main process it may be one that torch has put together from the worker's text.
    """
    kind = type(error)
    text = str(error)
    if not text.startswith(f"Caught {kind.__name__} in DataLoader worker"):
        return text
    return text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
