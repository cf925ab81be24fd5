"""Ctrl-C, full disks and broken writes: the last checkpoint stays, and the user is told."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from mtl.callbacks import AtomicCheckpointIO
from mtl.errors import MTLError
from tests.integration.shell import TINY, command, environment, invoke, newest, read

OLD = {"pytorch-lightning_version": "2.5.0", "value": torch.arange(4)}
NEW = {"pytorch-lightning_version": "2.5.0", "value": torch.arange(300_000)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(OLD, path)
    return path


def assert_untouched(path):
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["value"], OLD["value"])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def fail(kind):
    def function(*args, **kwargs):
        if kind is KeyboardInterrupt:
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return function


@pytest.mark.parametrize("where", ["torch.save", "os.replace", "os.fsync"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_failure_inside_a_write(where, kind, path, monkeypatch):
    monkeypatch.setattr(where, fail(kind))
    if kind is OSError:
        with pytest.raises(MTLError, match=re.escape(str(path))) as caught:
            AtomicCheckpointIO().save_checkpoint(NEW, path)
        assert "No space left" in str(caught.value)
        assert "untouched" in str(caught.value)
    else:
        with pytest.raises(KeyboardInterrupt):
            AtomicCheckpointIO().save_checkpoint(NEW, path)
    monkeypatch.undo()
    assert_untouched(path)


LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
from mtl.callbacks import AtomicCheckpointIO
from mtl.errors import MTLError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    AtomicCheckpointIO().save_checkpoint({"value": torch.arange(300_000)}, Path(sys.argv[1]))
except MTLError as error:
    print(error)
"""


def test_disk_that_is_really_full(path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        env=environment(path.parents[1]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"Cannot write the checkpoint {path}" in done.stdout
    assert_untouched(path)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    path = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(MTLError, match=re.escape(str(path))):
        AtomicCheckpointIO().save_checkpoint(NEW, path)


def test_a_whole_run_on_a_full_disk(tmp_path):
    """The second epoch's checkpoint fails: exit code 2, the first one's is there to resume."""
    saved = []

    def save(checkpoint, file):
        if saved:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: unexpected pos")
        saved.append(True)
        real(checkpoint, file)

    real = torch.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", save)
        done = invoke(*TINY, "trainer.max_epochs=4", cwd=tmp_path)
    done.refused("last.ckpt", "Free some space", "Resume with: python train.py")
    assert read(done.last)["global_step"] == 4
    assert [path.name for path in done.last.parent.iterdir()] == ["last.ckpt"]


def start_and_stop(cwd, number, *options):
    """Sends a signal after the first checkpoint; what the process then says, and its code."""
    process = subprocess.Popen(
        command(*options),
        cwd=cwd,
        env=environment(cwd),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has it ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for _ in range(1200):
            if list(cwd.rglob("last.ckpt")) or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        assert list(cwd.rglob("last.ckpt"))
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "Traceback" not in err
    (told,) = re.findall(r"Resume with: python train\.py (.*)", err)
    return process.returncode, shlex.split(told)  # as a shell reads it: brackets are quoted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_runs_keep_the_checkpoint_and_say_how_to_go_on(number, tmp_path):
    options = [*TINY, "trainer.max_epochs=100000", "tasks=[left,right]"]
    code, resume = start_and_stop(tmp_path, number, *options)
    assert code != 0
    last = newest(tmp_path) / "checkpoints" / "last.ckpt"
    done = read(last)["global_step"]
    assert done >= 4
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    assert resume[-1] == f"ckpt_path={last.relative_to(tmp_path)}"
    epochs = done // 4 + 1
    again = invoke(*resume, f"trainer.max_epochs={epochs}", cwd=tmp_path).ok()
    assert again.checkpoint["global_step"] == 4 * epochs
    assert read(last)["global_step"] == done  # the interrupted run's own is left alone
