"""Ray-cast rooms: storing, loading, decoding and drawing in several processes."""

import functools
import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scenes import cache, decode, draw, generate, load
from benchmarks.scenes.codec import STORED
from mtl.errors import DataError

SMALL = {"height": 32, "width": 32, "workers": 0}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope="module")
def small():
    return generate.generate(3, 0, 32, 32, workers=0)


def cache_file(folder):
    return folder / cache.cache_name(3, 0, 32, 32)


def forbid_drawing(monkeypatch):
    def fail(*_arguments, **_options):
        raise AssertionError("drawn again")

    monkeypatch.setattr(cache, "generate", fail)


def test_load_draws_once_and_caches(tmp_path, monkeypatch, small):
    done = []
    first = load(3, seed=0, cache_dir=tmp_path, progress=done.append, **SMALL)
    assert done == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["scenes-v1-0-3-32x32.npz"]
    forbid_drawing(monkeypatch)
    second = load(3, seed=0, cache_dir=tmp_path, progress=done.append, **SMALL)
    assert done == [3]
    assert_same(first, small)
    assert_same(second, small)


def test_stored_types_are_compact(small):
    assert {name: values.dtype for name, values in small.items()} == {
        name: dtype for name, (_, dtype) in STORED.items()
    }


def test_decode_restores_what_draw_returns(small):
    decoded = decode(small, [2, 0])
    for row, index in enumerate((2, 0)):
        sample = draw(0, index, 32, 32)
        assert decoded.keys() == sample.keys()
        for name, exact in sample.items():
            assert decoded[name].dtype == exact.dtype, name
            assert decoded[name][row].shape == exact.shape, name
        for name in ("segmentation", "edge"):
            np.testing.assert_array_equal(decoded[name][row], sample[name])
        for name in ("image", "albedo"):
            np.testing.assert_allclose(decoded[name][row], sample[name], atol=0.5 / 255 + 1e-6)
        np.testing.assert_allclose(decoded["depth"][row], sample["depth"], rtol=2**-11)
        np.testing.assert_allclose(decoded["normal"][row], sample["normal"], atol=5e-5)


def test_decoded_normals_have_unit_length_or_are_zero(small):
    length = np.linalg.norm(decode(small, np.arange(3))["normal"], axis=1)
    valid = small["depth"][:, 0] > 0
    np.testing.assert_allclose(length[valid], 1, atol=1e-6)
    assert (length[~valid] == 0).all()


def test_decode_takes_one_row_and_some_of_the_arrays(small):
    one = decode({"depth": small["depth"]}, 1)
    assert one.keys() == {"depth"}
    assert one["depth"].shape == (1, 32, 32)
    with pytest.raises(DataError, match=r"arrays: expected some of .*, got colour; pass"):
        decode({"colour": small["image"]}, 0)


def test_workers_draw_the_same_pictures(small):
    drawn = generate.generate(3, 0, 32, 32, workers=2)
    assert_same(drawn, small)
    assert not multiprocessing.active_children()


def test_interrupted_workers_are_gone(monkeypatch):
    def interrupt(_done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate.generate(200, 0, 32, 32, workers=2, progress=interrupt)
    assert not multiprocessing.active_children()


def test_worker_that_dies_is_explained(monkeypatch):
    monkeypatch.setattr(generate, "_ignore_interrupt", functools.partial(os._exit, 1))
    with pytest.raises(DataError, match=r"workers: expected 2 processes .* or pass workers=0"):
        generate.generate(40, 0, 32, 32, workers=2)
    assert not multiprocessing.active_children()


def test_few_pictures_need_no_worker():
    assert generate._worker_count(20, None) <= 1
    assert generate._worker_count(20, 3) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def scramble(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def other_version(path):
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["header"] = np.array(str(arrays["header"]).replace('"version": 1', '"version": 99'))
    np.savez(path, **arrays)


def without_depth(path):
    with np.load(path) as stored:
        arrays = {name: values for name, values in stored.items() if name != "depth"}
    np.savez(path, **arrays)


def wrong_shape(path):
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["depth"] = arrays["depth"][:1]
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "damage", [truncate, scramble, empty, other_version, without_depth, wrong_shape]
)
def test_damaged_cache_is_rebuilt_with_a_warning(tmp_path, monkeypatch, small, damage):
    monkeypatch.setattr(cache, "generate", lambda *_: small)
    load(3, seed=0, cache_dir=tmp_path, **SMALL)
    damage(cache_file(tmp_path))
    with pytest.warns(UserWarning, match="drawing the pictures again"):
        assert_same(load(3, seed=0, cache_dir=tmp_path, **SMALL), small)
    forbid_drawing(monkeypatch)
    assert_same(load(3, seed=0, cache_dir=tmp_path, **SMALL), small)


def test_full_disk_keeps_the_data(tmp_path, monkeypatch, small):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 999, 1))
    with pytest.warns(UserWarning, match="not cached .* free space: expected .* bytes, got 1"):
        assert_same(load(3, seed=0, cache_dir=tmp_path, **SMALL), small)
    assert not list(tmp_path.iterdir())


def test_disk_that_fills_up_while_writing_keeps_the_data(tmp_path, monkeypatch, small):
    def fail(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.warns(UserWarning, match="No space left"):
        assert_same(load(3, seed=0, cache_dir=tmp_path, **SMALL), small)
    assert not list(tmp_path.iterdir())


def test_unusable_folder_keeps_the_data(tmp_path, small):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(UserWarning, match="not cached"):
        assert_same(load(3, seed=0, cache_dir=blocked / "scenes", **SMALL), small)


def test_two_processes_may_write_the_same_file(tmp_path, small):
    context = multiprocessing.get_context("spawn")
    options = {"seed": 0, "cache_dir": tmp_path, **SMALL}
    processes = [context.Process(target=load, args=(3,), kwargs=options) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == [cache_file(tmp_path)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load(3, seed=0, cache_dir=tmp_path, **SMALL), small)


def test_default_folder_follows_the_xdg_rules(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_cache_dir() == tmp_path / "mtl" / "scenes"
    for ignored in ("", "relative" + os.sep + "folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache.default_cache_dir() == Path.home() / ".cache" / "mtl" / "scenes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0, "seed": 0}, "count: expected 1 or more, got 0"),
        ({"count": 1, "seed": -1}, "seed: expected 0 or more, got -1"),
        ({"count": 1, "seed": 0, "workers": -1}, "workers: expected 0 or more, got -1"),
        ({"count": 1, "seed": 0, "height": 33}, "height: expected a positive multiple of 32"),
    ],
)
def test_bad_requests_are_explained(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(**options, cache_dir=tmp_path)


def test_drawing_processes_do_not_load_the_framework():
    code = "import sys, benchmarks.scenes; sys.exit('torch' in sys.modules or 'mtl' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
