"""Checkpoints that survive interruptions, and that resume to the bit."""

from __future__ import annotations

import os
import pickle
import random
import tempfile
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mtl.errors import MTLError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file and renames: a full disk or Ctrl-C leaves the old one loadable.

    Loading accepts plain data and tensors only (`weights_only=True`).
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint; on any failure the file at `path` is what it was.

        Raises:
            MTLError: The disk is full or the folder is not writable.
        """
        del storage_options
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise MTLError(f"Cannot write the checkpoint {path}: {error}.") from error
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            raise MTLError(
                f"Cannot write the checkpoint {path}: {error}. Free some space, then resume from "
                "the last checkpoint, which is untouched."
            ) from error
        finally:
            Path(temporary).unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = lambda storage, loc: storage,  # noqa: ARG005
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            MTLError: There is no such file, or it is no checkpoint of this kind.
        """
        del weights_only
        try:
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
        except FileNotFoundError as error:
            raise MTLError(
                f"Checkpoint not found: {path}. Runs keep theirs in <run>/checkpoints/last.ckpt."
            ) from error
        except (
            OSError,
            RuntimeError,
            EOFError,
            KeyError,
            ValueError,
            pickle.UnpicklingError,
        ) as error:
            raise MTLError(
                f"{path} is not a readable checkpoint: {error}. Use an earlier one."
            ) from error
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise MTLError(
                f"{path} is not the checkpoint of a run, which has more than a state_dict. Runs "
                "keep theirs in <run>/checkpoints/last.ckpt."
            )
        return checkpoint


class RandomState(lightning.Callback):
    """Saves the state of the global random generators, so that dropout resumes to the bit."""

    def __init__(self) -> None:
        super().__init__()
        self._state: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """States of torch (CPU and CUDA), numpy and Python."""
        kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
        version, internal, normal = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, torch.from_numpy(np.array(keys)), position, has_gauss, gauss],
            "python": [version, list(internal), normal],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until training starts."""
        self._state = state_dict

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Puts the generators where they were."""
        del trainer, pl_module
        state, self._state = self._state, None
        if state is None:
            return
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"]:
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        kind, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((kind, keys.numpy(), position, has_gauss, gauss))  # noqa: NPY002
        version, internal, normal = state["python"]
        random.setstate((version, tuple(internal), normal))
