"""Runs train.py: in a shell of its own, or in this process where a shell adds nothing but time."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support import ROOT

SCRIPT = ROOT / "train.py"
QUIET = ["trainer.enable_progress_bar=false"]
TINY = [
    "dataset=multidigits",
    "dataset.train_count=200",
    "dataset.val_count=50",
    "dataset.test_count=51",
    "dataset.batch_size=50",
    "trainer.max_epochs=1",
    *QUIET,
]


@dataclass(frozen=True)
class Finished:
    """What a run said and left."""

    code: int
    out: str
    err: str
    cwd: Path
    folder: Path | None

    @property
    def results(self) -> dict:
        return json.loads((self.folder / "metrics.json").read_text())

    @property
    def checkpoint(self) -> dict:
        return read(self.last)

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    def ok(self) -> Finished:
        assert self.code == 0, self.err + self.out
        return self

    def refused(self, *words: str) -> str:
        """Asserts exit code 2 and a message without traceback that has all of the words."""
        assert self.code == 2, (self.code, self.err + self.out)
        assert "Traceback" not in self.err + self.out
        missing = [word for word in words if word not in self.err]
        assert not missing, (missing, self.err)
        return self.err


def environment(cwd: Path, **extra: str) -> dict[str, str]:
    """Without network, with one thread, a cache of its own, and the framework importable."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "WANDB", "HYDRA"))}
    return kept | {
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(cwd / "cache"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
        **extra,
    }


def command(*options: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *options]


def shell(*options: str, cwd: Path, timeout: float = 300, **extra: str) -> Finished:
    """As a user would: a new process in a folder of its own."""
    done = subprocess.run(
        command(*options),
        cwd=cwd,
        env=environment(cwd, **extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr, cwd, newest(cwd))


def invoke(*options: str, cwd: Path, **extra: str) -> Finished:
    """The same script in this process, without the seconds that imports take."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment(cwd, **extra).keys():
            patch.delenv(name)
        for name, value in environment(cwd, **extra).items():
            patch.setenv(name, value)
        patch.setenv("HYDRA_FULL_ERROR", "1")  # set by the script; here it must not stay
        patch.setattr(sys, "argv", [str(SCRIPT), *options])
        patch.chdir(cwd)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(SCRIPT), run_name="__main__")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                root.handlers[:], root.level = handlers, level
    return Finished(code, out.getvalue(), err.getvalue(), cwd, newest(cwd))


def newest(cwd: Path) -> Path | None:
    """The folder of the last run, if there is one."""
    folders = [path.parent for path in (cwd / "outputs").rglob(".hydra")]
    return max(folders, key=lambda folder: folder.name, default=None)


def read(path: Path) -> dict:
    """A checkpoint, as plain data and tensors."""
    return torch.load(path, map_location="cpu", weights_only=True)
