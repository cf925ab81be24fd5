"""Networks from timm, with or without their ImageNet weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from mtl.errors import ConfigError


def vision(package: str) -> Any:
    """A module of the extra `vision`.

    Args:
        package: `timm`, `torchvision`, or a module in them.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"This model needs the package {package.split('.')[0]}, which cannot be imported "
            f'({error}). Install it: pip install -e ".[vision]". Or choose another one, for '
            "example model=unet."
        ) from error


def require(part: Any) -> None:
    """Looks whether a class of this package has what it needs.

    Args:
        part: The class; `packages` names what it takes from the extra `vision`.

    Raises:
        ConfigError: A package is not installed.
    """
    for package in getattr(part, "packages", ()):
        vision(package)


def create(name: str, *, pretrained: bool | str, **options: Any) -> nn.Module:
    """A network of timm.

    Args:
        name: As in `timm.list_models()`.
        pretrained: Whether to start from the ImageNet weights of that name, downloaded once into
            the Hugging Face cache; or a file that holds them.
        options: Further arguments of `timm.create_model`.

    Raises:
        ConfigError: timm is not installed or does not know the name, or the weights are neither in
            the cache nor to be had.
    """
    timm = vision("timm")
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise ConfigError(
                f"`pretrained`: expected true, false or a file of weights, got {pretrained!r}."
            )
        options["pretrained_cfg_overlay"] = {"file": pretrained}
    try:
        return timm.create_model(name, pretrained=bool(pretrained), **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise ConfigError(f"timm cannot make {name!r}: {error}.") from error
        raise ConfigError(
            f"The ImageNet weights of {name!r} are not in the local cache and could not be "
            f"downloaded or loaded: {_first_line(error)} With network, "
            f"`python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` fills the "
            "cache. Without, give their file, model.backbone.pretrained=FILE, or start from "
            "random weights: model.backbone.pretrained=false."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
