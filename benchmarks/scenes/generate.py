"""Draws many pictures, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from benchmarks.scenes.codec import STORED, Arrays, encode, stored_shape
from benchmarks.scenes.failures import data_error
from benchmarks.scenes.render import draw

Progress = Callable[[int], None]
Span = tuple[int, int]

_CHUNK = 16
_WORTH_A_WORKER = 64


def generate(
    count: int,
    seed: int,
    height: int,
    width: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Arrays:
    """Draws pictures 0 to count − 1 of a data set in stored form (`codec.STORED`).

    The pictures don't depend on the number of workers. Workers are spawned, so a script that asks
    for several must guard its entry with `if __name__ == "__main__":`. They ignore Ctrl-C; when
    this process is interrupted, it lets them finish the chunks at hand (well under a second at
    64 × 64) and waits for their exit.

    Args:
        count: Number of pictures.
        seed: Data set.
        height: Picture height in pixels.
        width: Picture width in pixels.
        workers: Processes; 0 or 1 draws in this process, None takes one for each available core
            if there are enough pictures to pay for their start.
        progress: Called with the number of pictures drawn so far, after each chunk.

    Returns:
        Arrays whose first axis is the picture.

    Raises:
        DataError: A worker ended before its work was done.
    """
    arrays = {
        name: np.empty(stored_shape(name, count, height, width), dtype)
        for name, (_, dtype) in STORED.items()
    }
    spans = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    processes = _worker_count(count, workers)
    if processes > 1:
        _draw_in_workers(arrays, spans, seed, (height, width), processes, progress)
    else:
        for span in spans:
            _store(arrays, span, _draw_span(seed, span, height, width))
            if progress is not None:
                progress(span[1])
    return arrays


def _worker_count(count: int, workers: int | None) -> int:
    """Processes to use; 1 stands for this process, as inside workers that may not start others."""
    if multiprocessing.current_process().daemon:
        return 1
    if workers is not None:
        return workers
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, count // _WORTH_A_WORKER)


def _draw_span(seed: int, span: Span, height: int, width: int) -> Arrays:
    """Draws pictures span[0] to span[1] − 1; runs in a worker."""
    samples = [encode(draw(seed, index, height, width)) for index in range(*span)]
    return {name: np.stack([sample[name] for sample in samples]) for name in STORED}


def _store(arrays: Arrays, span: Span, drawn: Arrays) -> None:
    for name, values in drawn.items():
        arrays[name][span[0] : span[1]] = values


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_in_workers(
    arrays: Arrays,
    spans: list[Span],
    seed: int,
    size: tuple[int, int],
    processes: int,
    progress: Progress | None,
) -> None:
    executor = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_ignore_interrupt
    )
    done = 0
    try:
        futures: dict[Future[Arrays], Span] = {
            executor.submit(_draw_span, seed, span, *size): span for span in spans
        }
        for future in as_completed(futures):
            span = futures.pop(future)
            _store(arrays, span, future.result())
            done += span[1] - span[0]
            if progress is not None:
                progress(done)
    except BrokenProcessPool as error:
        raise data_error(
            f"workers: expected {processes} processes to draw pictures, got one that ended early; "
            'guard the calling script with `if __name__ == "__main__":`, or pass workers=0'
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
