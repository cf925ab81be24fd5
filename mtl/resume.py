"""Does a checkpoint belong to the run that is to go on from it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtl.errors import ConfigError

# What a resumed run may change about its balancer.
_FREE = {"on_nonfinite", "max_nonfinite", "max_rows"}


def check_resumable(
    checkpoint: Mapping[str, Any], tasks: Sequence[str], config: Mapping[str, Any] | None
) -> None:
    """Compares tasks, model and balancer, before weights of other shapes meet.

    Args:
        checkpoint: As `MTLModule` saves it, with `tasks` and perhaps `config`.
        tasks: Names of the present tasks, in the order of rows.
        config: The present configuration as plain data, if there is one.

    Raises:
        ConfigError: They differ; the message names the differences.
    """
    pairs: list[tuple[str, Any, Any]] = [("tasks", checkpoint.get("tasks", tasks), tasks)]
    if config is not None and "config" in checkpoint:
        saved = checkpoint["config"]
        pairs += [
            (key, saved.get(key), config.get(key)) for key in ("model", "sharing", "balancer")
        ]
    differences = [line for pair in pairs for line in _differences(*pair)]
    if differences:
        raise ConfigError(
            f"The checkpoint is of another run: {'; '.join(differences)}. Give the options that "
            "it was made with, or train from the start without it."
        )


def _differences(path: str, saved: Any, present: Any) -> Iterator[str]:
    """Says where two configurations differ."""
    both = (saved, present)
    if not all(isinstance(node, dict) for node in both):
        if saved != present:
            yield f"`{path}` is {saved!r} there and {present!r} here"
    elif saved.get("_target_") != present.get("_target_"):
        yield from _differences(path, *(node.get("_target_") for node in both))
    else:
        for key in dict.fromkeys([*saved, *present]):
            if key not in _FREE:
                yield from _differences(f"{path}.{key}", saved.get(key), present.get(key))
