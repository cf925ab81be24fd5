"""Prints the power-law exponents of a trained network, of its backbone and of each head.

python scripts/power_law.py ckpt=outputs/scenes/rep_mtl/.../checkpoints/last.ckpt
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn

from mtl.errors import ConfigError, DataError, MTLError, UnsupportedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyzes the checkpoint given as `ckpt=FILE`; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if len(arguments) != 1 or not arguments[0].startswith("ckpt="):
            raise ConfigError(f"Expected ckpt=FILE. Got {' '.join(arguments) or 'nothing'}.")
        parts = load(Path(arguments[0].removeprefix("ckpt=")))
        rows = {name: exponents(part) for name, part in parts.items()}
    except MTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = Table("part", "mean alpha", "layers")
    for name, alphas in rows.items():
        mean = f"{sum(alphas) / len(alphas):.2f}" if alphas else "- (too small)"
        table.add_row(name, mean, str(len(alphas)))
    Console().print(table)
    return 0


def load(path: Path) -> dict[str, nn.Module]:
    """Backbone and heads of the model in a checkpoint that train.py wrote.

    Raises:
        DataError: It is no such file.
    """
    from train import assemble

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        config = checkpoint["config"] | {"ckpt_path": str(path)}  # all weights are there
        state = checkpoint["state_dict"]
    except (OSError, KeyError, RuntimeError, TypeError, EOFError, UnpicklingError) as error:
        raise DataError(f"{path} should be a checkpoint of train.py. Got: {error}.") from error
    module, _ = assemble(OmegaConf.create(config))
    model = module.model
    weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    model.load_state_dict(weights)
    return {"backbone": model.backbone, **{f"head {n}": h for n, h in model.heads.items()}}


def exponents(part: nn.Module) -> list[float]:
    """Exponent alpha of every layer whose spectrum is long enough, by `weightwatcher`.

    The density of the eigenvalues x of W^T W is fitted by x^-alpha above the x_min with the least
    Kolmogorov-Smirnov distance. A k x k convolution counts as k^2 matrices with one spectrum.

    Raises:
        UnsupportedError: The package is missing.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import weightwatcher  # it greets
    except ImportError as error:
        raise UnsupportedError(
            f'Power laws need the package weightwatcher ({error}): pip install -e ".[analysis]"'
        ) from error
    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # its own use of NumPy
        details: Any = weightwatcher.WeightWatcher(model=part).analyze()
    if "alpha" not in details:
        return []
    return [float(alpha) for alpha in details["alpha"] if alpha > 0]


if __name__ == "__main__":
    sys.exit(main())
