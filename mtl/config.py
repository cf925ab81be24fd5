"""From Hydra's configuration to objects; the only module of the library that knows Hydra."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from torch import nn

from mtl.errors import ConfigError, MTLError


@dataclass
class TrainConfig:
    """Every key that a configuration may have at its top level; any other one is an error."""

    dataset: Any = MISSING
    model: Any = MISSING
    sharing: Any = MISSING
    balancer: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    trainer: Any = MISSING
    logger: Any = None
    callbacks: Any = None
    selection: str = "last"
    tasks: list[str] | None = None
    corrupt_tasks: Any = None
    num_tasks: int | None = None  # filled in from the data set, for ${num_tasks}
    num_features: int | None = None  # likewise, where the data set says it
    positions: list[float] | None = None  # the same, where tasks are ordered
    num_objectives: Any = "${num_tasks}"  # what a combiner sees; transforms may change it
    seed: int = 0
    ckpt_path: str | None = None
    resume: bool = False
    train: bool = True
    baseline: str | None = "auto"
    output_dir: str = MISSING


def register_schema() -> None:
    """Makes the schema known to Hydra as `schema`, and `folder_name` as a resolver."""
    ConfigStore.instance().store(name="schema", node=TrainConfig)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def folder_name(text: str, most: int = 200) -> str:
    """A text as the name of one folder.

    Args:
        text: May have slashes, as paths and groups such as `balancer/combine=ew` do.
        most: Bytes that are kept; file systems take 255.
    """
    return text.replace("/", ".").encode()[:most].decode(errors="ignore")


def build(config: DictConfig, *args: Any, **kwargs: Any) -> Any:
    """Makes the object that a node with `_target_` describes, with plain lists and dicts.

    Args:
        config: The node.
        args: Positional arguments to add.
        kwargs: Keyword arguments to add.
    """
    return hydra.utils.instantiate(config, *args, _convert_="all", **kwargs)


def build_all(config: DictConfig | None) -> list[Any]:
    """Makes the objects of a node that maps names to nodes; entries that are null are left out."""
    nodes = [] if config is None else config.values()
    return [build(node) for node in nodes if node is not None]


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain data, fit for a checkpoint."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def check_arguments(config: Any, path: str = "") -> None:
    """Checks the keys and every `_target_` of a configuration before anything is built.

    Args:
        config: A node, with all its children.
        path: Its full key.

    Raises:
        ConfigError: A top-level key is unknown, a target does not exist, it has no argument of
            that name, or takes numbers where something else is given; the message lists those
            that exist.
    """
    if not OmegaConf.is_dict(config):
        return
    if not path:
        known = [field.name for field in fields(TrainConfig)]
        for key in config:
            if key not in known:
                raise ConfigError(f"Unknown key {key!r}. {_choices(str(key), known)}")
    if "_target_" in config:
        target = _locate(config["_target_"], path)
        accepted = _arguments(target)
        for key in config:
            if not str(key).startswith("_") and accepted is not None and key not in accepted:
                raise ConfigError(
                    f"Unknown key {_join(path, key)!r}: {config['_target_']} has no argument "
                    f"{key!r}. {_choices(str(key), accepted)}"
                )
        _check_numbers(target, config, path)
    for key in config:
        if not OmegaConf.is_missing(config, key):
            check_arguments(config[key], _join(path, key))


def explain(error: Exception, config_dir: Path) -> str | None:
    """What is wrong with a command line or configuration file, and what exists instead.

    Args:
        error: Raised by Hydra or OmegaConf.
        config_dir: Folder of the configuration groups.

    Returns:
        The message, or `None` if the error is of another kind.
    """
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    lines = [str(error).strip()]
    causes: list[BaseException] = [error]
    while (earlier := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(earlier)
    own = next((c for c in causes if isinstance(c, MTLError)), None)
    if own is not None:  # raised by a constructor
        where = lines[0].rpartition("full_key: ")[2]
        return f"{type(own).__name__}: {own}\n(in `{where}`)"
    cause = causes[-1]
    node: Any = getattr(cause, "parent_node", None)
    wrong = str(getattr(cause, "key", ""))
    if "Could not find 'hydra/launcher/" in lines[0]:
        lines.append('Launchers are extras: pip install -e ".[joblib]", submitit or ray.')
    if "No match in the defaults list" in lines[0]:
        wrong = lines[0].split("'")[1].split("=")[0]
    if "/" in wrong or "No match in the defaults list" in lines[0]:
        groups = [p.relative_to(config_dir) for p in config_dir.rglob("*") if p.is_dir()]
        lines.append(_choices(wrong, sorted(p.as_posix() for p in groups), what="Groups"))
    elif isinstance(cause, ConfigKeyError | ConfigAttributeError) and OmegaConf.is_dict(node):
        lines.append(_choices(wrong, [str(key) for key in node]))
    elif str(cause) not in lines[0]:
        lines.append(str(cause))
    return "\n".join(lines)


def _locate(target: Any, path: str) -> Any:
    """The class or function at a dotted path."""
    name, found, parent = "", None, None
    expected = (
        f"`{_join(path, '_target_')}` should be the dotted path of a class or function that "
        f"Python can import. Got {target!r}"
    )
    try:
        for part in str(target).split("."):
            name = f"{name}.{part}" if name else part
            parent, found = found, getattr(found, part, None) if found is not None else None
            if found is None:
                found = importlib.import_module(name)
    except (ImportError, ValueError) as error:
        if parent is None:
            raise ConfigError(f"{expected}: {error}. Is its folder on PYTHONPATH?") from error
        there = [key for key, value in vars(parent).items() if callable(value)]
        raise ConfigError(f"{expected}: {error}. {_choices(part, there)}") from error
    if not callable(found):
        raise ConfigError(f"{expected}, a {type(found).__name__}.")
    return found


def _check_numbers(target: Any, config: DictConfig, path: str) -> None:
    """Checks the values of arguments that are annotated as numbers, switches, or null."""
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return  # annotations that exist for type checkers only
    for key in map(str, config):
        hint = hints.get(key)
        kinds = set(get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint])
        if not kinds <= {int, float, bool, NoneType} or OmegaConf.is_interpolation(config, key):
            continue
        if float in kinds:
            kinds.add(int)
        if not OmegaConf.is_missing(config, key) and type(config[key]) not in kinds:
            names = sorted("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ConfigError(
                f"`{_join(path, key)}` should be of type {' or '.join(names)}. Got {config[key]!r}."
            )


def _arguments(target: Any) -> list[str] | None:
    """Names of the arguments that a callable accepts; `None` if any."""
    if getattr(target, "__init__", None) is nn.Module.__init__:
        return []  # whatever its signature says
    parameters = inspect.signature(target).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.name != "self"]


def _choices(wrong: str, names: Iterable[str], what: str = "There are") -> str:
    names = [name for name in names if not name.startswith("_")]
    close = difflib.get_close_matches(wrong, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{what}: {', '.join(names) or 'none'}.{hint}"


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
