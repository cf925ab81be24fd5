"""The most memory that a run held at once."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


class PeakMemory:
    """Measures from its construction on: on a GPU what PyTorch allocated, else the process.

    The process is measured on Linux alone, as the peak resident set, in which the program itself
    (about 0.5 GB with PyTorch) is contained.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._reset = _reset()

    def read(self, on_gpu: bool) -> int | None:
        """Bytes; `None` where they cannot be measured.

        Args:
            on_gpu: Whether the model was trained on a CUDA device.
        """
        if on_gpu:
            return torch.cuda.max_memory_allocated()
        return _resident() if self._reset else None


def _reset() -> bool:
    """Runs of a sweep share a process: the kernel is told to forget the peak of earlier ones."""
    if sys.platform != "linux":
        return False
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:  # some containers forbid it
        return False
    return True


def _resident() -> int | None:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None
