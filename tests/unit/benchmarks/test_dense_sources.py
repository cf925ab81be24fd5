"""Every public form gives the same samples, and what is wrong with a file is said by its name."""

import os
import re
import shutil

import numpy as np
import pytest
import torch

from benchmarks.dense.cityscapes import Cityscapes
from benchmarks.dense.nyuv2 import NYUv2
from benchmarks.dense.source import spread
from benchmarks.scenes import decode
from mtl.errors import ConfigError, DataError
from tests.rooms import COUNTS, SIZE, rooms, write

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")


@pytest.fixture(scope="module")
def mtan(tmp_path_factory):
    return write("mtan", tmp_path_factory.mktemp("mtan"))


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    return write("cityscapes", tmp_path_factory.mktemp("cityscapes"))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    pytest.importorskip("datasets")
    return write("parquet", tmp_path_factory.mktemp("parquet"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def samples(root, tmp_path, **options):
    sources = NYUv2(data_dir=root, cache_dir=tmp_path / "rows", **options).open()
    return {
        split: [source.read(i) for i in range(len(source))] for split, source in sources.items()
    }


def assert_are_the_rooms(found):
    for split, seed in (("train", 1), ("val", 2)):
        assert len(found[split]) == COUNTS[split]
        stored = rooms(COUNTS[split], seed)
        for index, sample in enumerate(found[split]):
            room = decode({name: stored[name] for name in sample}, index)
            assert list(sample) == ["image", "segmentation", "depth", "normal"]
            for name, values in sample.items():
                assert values.dtype == room[name].dtype
                np.testing.assert_array_equal(values, room[name])
    assert (np.stack([s["segmentation"] for s in found["train"]]) == -1).any()
    assert (np.stack([s["depth"] for s in found["train"]]) == 0).any()


# --------------------------------------------------------------------------------- all the forms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("below", [".", "nyuv2", "NYUv2"])
def test_mtan_folders(dtype, below, tmp_path):
    write("mtan", tmp_path / "data" / below, dtype=dtype)
    assert_are_the_rooms(samples(tmp_path / "data", tmp_path))


def test_integer_labels_and_depth_without_channel(mtan, tmp_path):
    root = shutil.copytree(mtan, tmp_path / "data")
    for path in root.rglob("label/*.npy"):
        np.save(path, np.load(path).astype(np.int8))
    assert_are_the_rooms(samples(root, tmp_path))


def test_parquet(parquet, tmp_path):
    assert len(list((parquet / "data").glob("train-*-of-00002.parquet"))) == 2
    assert_are_the_rooms(samples(parquet, tmp_path))
    assert_are_the_rooms(samples(parquet / "data", tmp_path))


def test_hub_cache_without_a_path(parquet, tmp_path):
    snapshot = tmp_path / "hub" / "datasets--tanganke--nyuv2" / "snapshots" / "b367b8b5"
    shutil.copytree(parquet, snapshot)
    assert_are_the_rooms(samples(None, tmp_path))


@pytest.mark.parametrize("variables", [{"HF_HOME": "home"}, {"XDG_CACHE_HOME": ""}])
def test_places_of_the_hub_cache(variables, parquet, tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    home = tmp_path / (variables.get("HF_HOME") or "huggingface")
    shutil.copytree(parquet, home / "hub/datasets--tanganke--nyuv2/snapshots/b367b8b5")
    assert_are_the_rooms(samples(None, tmp_path))


def test_saved_by_datasets(parquet, tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {
        split: datasets.Dataset.from_parquet(
            [str(p) for p in sorted((parquet / "data").glob(f"{split}-*"))],
            cache_dir=str(tmp_path / "cache"),
        )
        for split in COUNTS
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    assert_are_the_rooms(samples(tmp_path / "saved", tmp_path))


@pytest.mark.parametrize("cached", ["nothing", "all shards but one"])
def test_download(cached, parquet, tmp_path, monkeypatch):
    """The hub's part is played by a local folder; what is asked of it is checked."""
    datasets = pytest.importorskip("datasets")
    if cached != "nothing":
        snapshot = tmp_path / "hub" / "datasets--tanganke--nyuv2" / "snapshots" / "b367b8b5"
        shutil.copytree(parquet, snapshot)
        (snapshot / "data" / "val-00001-of-00002.parquet").unlink()
        with pytest.raises(DataError, match=r"missing: 1"):
            samples(None, tmp_path)
    asked = []

    def load_dataset(name, cache_dir):
        asked.append(name)
        files = {split: str(parquet / "data" / f"{split}-*") for split in COUNTS}
        return real("parquet", data_files=files, cache_dir=cache_dir)

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert_are_the_rooms(samples(None, tmp_path, download=True))
    assert asked == ["tanganke/nyuv2"]


def test_download_without_network(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"tanganke/nyuv2 cannot be downloaded.*data_dir=DIR"):
        samples(None, tmp_path, download=True)


@pytest.mark.parametrize("folders", [["label_7"], ["label"], ["label", "label_19"]])
def test_cityscapes_with_7_classes(folders, cityscapes, tmp_path):
    """`label` is LibMTL's name of `label_7`."""
    root = shutil.copytree(cityscapes, tmp_path / "data")
    for split in COUNTS:
        if "label" in folders:
            (root / split / "label_7").rename(root / split / "label")
        if "label_19" not in folders:
            shutil.rmtree(root / split / "label_19")
    source = Cityscapes(data_dir=root).open()["train"]
    sample, stored = source.read(3), rooms(COUNTS["train"], 1)
    assert list(sample) == ["image", "segmentation", "depth"]
    assert set(np.unique(sample["segmentation"])) <= set(range(-1, 7))
    metric = stored["depth"][3].astype(np.float32)
    np.testing.assert_array_equal(sample["depth"] == 0, metric == 0)
    np.testing.assert_allclose(sample["depth"] * metric, np.where(metric > 0, 0.2, 0), rtol=1e-6)


def test_cityscapes_prefers_label_7(cityscapes, tmp_path):
    root = shutil.copytree(cityscapes, tmp_path / "data")
    for split in COUNTS:
        shutil.copytree(root / split / "label_19", root / split / "label")
    first = Cityscapes(data_dir=root).open()["train"].read(0)["segmentation"]
    raw = np.load(root / "train" / "label_7" / "0.npy")
    np.testing.assert_array_equal(first, raw.astype(np.int64))


def test_cityscapes_with_19_classes(cityscapes):
    benchmark = Cityscapes(data_dir=cityscapes, num_classes=19)
    labels = [benchmark.open()["train"].read(i)["segmentation"] for i in range(COUNTS["train"])]
    assert np.max(labels) == 12  # the last class of rooms
    assert benchmark.tasks(lambda size: torch.nn.Conv2d(1, size, 1))[0].head.out_channels == 19


def test_label_folder_with_19_classes_is_told(cityscapes, tmp_path):
    """The trap: the same name for 7 and for 19 classes."""
    root = shutil.copytree(cityscapes, tmp_path / "data")
    for split in COUNTS:
        shutil.rmtree(root / split / "label_7")
        (root / split / "label_19").rename(root / split / "label")
    source = Cityscapes(data_dir=root).open()["train"]
    place = re.escape(str(root / "train" / "label"))
    with pytest.raises(DataError, match=place + r".*-1 \(unlabelled\) to 6.*another number"):
        [source.read(index) for index in range(len(source))]


def test_no_folder_with_labels_of_that_number(cityscapes, tmp_path):
    root = shutil.copytree(cityscapes, tmp_path / "data")
    shutil.rmtree(root / "val" / "label_7")
    with pytest.raises(DataError, match=r"val: expected the labels of 7 classes.*got label_19"):
        Cityscapes(data_dir=root).open()
    with pytest.raises(ConfigError, match="num_classes"):
        Cityscapes(data_dir=root, num_classes=8)


@pytest.mark.parametrize(("count", "limit"), [(9, None), (9, 9), (9, 20), (9, 4), (5, 1), (2, 2)])
def test_limit_takes_evenly_spread_samples(count, limit):
    chosen = list(spread(count, limit))
    assert len(chosen) == len(set(chosen)) == min(count, limit or count)
    assert chosen == sorted(chosen)
    assert chosen[0] == 0
    assert len(chosen) == 1 or chosen[-1] == count - 1


# ---------------------------------------------------------------------------------- bad input


def edit(path, change):
    np.save(path, change(np.load(path)))


def put(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN_SAMPLES = {
    # what: (file, how it is broken, what is said)
    "label too large": ("label", lambda p: edit(p, put((3, 4), 13)), "-1 (unlabelled) to 12, got"),
    "label 255": ("label", lambda p: edit(p, put((3, 4), 255)), "to 255"),
    "label too small": ("label", lambda p: edit(p, put((3, 4), -2)), "got -2"),
    "half a label": ("label", lambda p: edit(p, put((3, 4), 0.5)), "whole class ids"),
    "NaN label": ("label", lambda p: edit(p, put((3, 4), np.nan)), "1 NaN"),
    "image 0..255": ("image", lambda p: edit(p, lambda a: a * 255), "Divide images of 0 to 255"),
    "negative image": ("image", lambda p: edit(p, lambda a: 2 * a - 1), "values 0 to 1, got -"),
    "NaN image": ("image", lambda p: edit(p, put((0, 0, 0), np.nan)), "1 NaN"),
    "NaN depth": ("depth", lambda p: edit(p, put((0, 0, 0), np.nan)), "Mark invalid pixels 0"),
    "infinite depth": ("depth", lambda p: edit(p, put((0, 0, 0), np.inf)), "1 NaN or infinite"),
    "negative depth": ("depth", lambda p: edit(p, put((0, 0, 0), -1)), "0 or more, got -1"),
    "NaN normal": ("normal", lambda p: edit(p, put((0, 0, 0), np.nan)), "(0, 0, 0)"),
    "normal as colour": ("normal", lambda p: edit(p, lambda a: 127 * (a + 1)), "unit vectors"),
    "another size": ("depth", lambda p: edit(p, lambda a: a[:-1]), "[32, 64]"),
    "grey image": ("image", lambda p: edit(p, lambda a: a[..., :1]), "3 channel(s), got [1, 32"),
    "channels first": ("normal", lambda p: edit(p, lambda a: np.moveaxis(a, -1, 0)), "channels"),
    "empty array": ("image", lambda p: edit(p, lambda a: a[:0]), "expected image"),
    "text": ("depth", lambda p: p.write_text("not an array"), "expected a .npy file"),
    "truncated": ("image", cut, "expected a .npy file"),
    "empty file": ("image", lambda p: p.write_bytes(b""), "expected a .npy file"),
    "objects": (
        "depth",
        lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True),
        "expected a .npy file",
    ),
    "strings": ("depth", lambda p: np.save(p, np.array(["a"])), "one array of numbers"),
}


@pytest.mark.parametrize("what", BROKEN_SAMPLES)
def test_broken_sample(what, mtan, tmp_path):
    name, change, said = BROKEN_SAMPLES[what]
    root = shutil.copytree(mtan, tmp_path / "data")
    path = root / "train" / name / "4.npy"
    change(path)
    source = NYUv2(data_dir=root).open()["train"]
    source.read(3)
    with pytest.raises(DataError) as caught:
        source.read(4)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


BROKEN_FOLDERS = {
    "hole": (lambda r: (r / "train/depth/4.npy").unlink(), ["train/depth", "missing: 4.npy"]),
    "starts at 1": (lambda r: (r / "val/image/0.npy").unlink(), ["val/image", "0.npy"]),
    "wrong count": (lambda r: (r / "train/label/8.npy").unlink(), ["8 in label/", "9 in depth/"]),
    "no such folder": (lambda r: shutil.rmtree(r / "train/normal"), ["train", "missing: normal"]),
    "empty folder": (
        lambda r: [p.unlink() for p in (r / "val/depth").iterdir()],
        ["val/depth", "an empty folder"],
    ),
    "a name that is no number": (
        lambda r: (r / "train/image/0.npy").rename(r / "train/image/first.npy"),
        ["train/image", "first.npy"],
    ),
    "a number twice": (
        lambda r: shutil.copy(r / "train/image/1.npy", r / "train/image/01.npy"),
        ["train/image", "some number twice"],
    ),
    "missing split": (lambda r: shutil.rmtree(r / "val"), ["val", "no such folder"]),
}


@pytest.mark.parametrize("what", BROKEN_FOLDERS)
def test_broken_folder(what, mtan, tmp_path):
    change, said = BROKEN_FOLDERS[what]
    root = shutil.copytree(mtan, tmp_path / "data")
    change(root)
    with pytest.raises(DataError) as caught:
        NYUv2(data_dir=root).open()
    for word in (str(root), *said):
        assert word in str(caught.value)


def test_hidden_files_are_no_samples(mtan, tmp_path):
    root = shutil.copytree(mtan, tmp_path / "data")
    (root / "train" / "image" / "._0.npy").write_bytes(b"left by another system")
    (root / "train" / "image" / "notes.txt").write_text("of the user")
    assert len(NYUv2(data_dir=root).open()["train"]) == COUNTS["train"]


def rewrite(path, change):
    """Writes a shard again, with other columns or values."""
    datasets = pytest.importorskip("datasets")
    cache = str(path.parent / "cache")
    data = change(datasets.Dataset.from_parquet(str(path), cache_dir=cache))
    data.to_parquet(str(path))


def overwrite_middle(path):
    content = path.read_bytes()
    middle = len(content) // 4
    path.write_bytes(content[:middle] + bytes(2 * middle) + content[3 * middle :])


BROKEN_SHARDS = {
    "truncated": (cut, ["truncated"]),
    "empty": (lambda p: p.write_bytes(b""), ["truncated"]),
    "text": (lambda p: p.write_text("not a table"), ["truncated"]),
    "overwritten": (overwrite_middle, ["cannot be decoded"]),
    "without depth": (
        lambda p: rewrite(p, lambda d: d.remove_columns("depth")),
        ["missing: depth", "image, segmentation"],
    ),
    "missing": (lambda p: p.unlink(), ["missing: 1"]),
}


@pytest.mark.parametrize("what", BROKEN_SHARDS)
def test_broken_parquet(what, parquet, tmp_path):
    change, said = BROKEN_SHARDS[what]
    root = shutil.copytree(parquet, tmp_path / "data")
    path = root / "data" / "train-00001-of-00002.parquet"
    change(path)
    with pytest.raises(DataError) as caught:
        samples(root, tmp_path)
    place = path.parent if what == "missing" else path
    for word in (str(place), *said):
        assert word in str(caught.value)


def test_parquet_without_a_split(parquet, tmp_path):
    root = shutil.copytree(parquet, tmp_path / "data")
    for path in (root / "data").glob("val-*"):
        path.unlink()
    with pytest.raises(DataError, match=r"data: expected all shards val-NNNNN.*missing: all"):
        samples(root, tmp_path)


def test_value_in_a_parquet_row_is_named(parquet, tmp_path):
    root = shutil.copytree(parquet, tmp_path / "data")
    path = root / "data" / "train-00001-of-00002.parquet"

    def spoil(row, index):
        depth = np.array(row["depth"], np.float32)
        return {"depth": np.where(index == 1, np.nan, depth)}

    rewrite(path, lambda d: d.map(spoil, with_indices=True))
    with pytest.raises(DataError, match=re.escape(f"{path}, row 1, column depth") + ".*NaN"):
        samples(root, tmp_path)


def test_without_the_package_datasets(parquet, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match=r'pip install -e ".\[hf\]"'):
        samples(parquet, tmp_path)


@pytest.mark.parametrize("benchmark", [NYUv2, Cityscapes])
@pytest.mark.parametrize("root", ["nowhere", "empty", "a file", None])
def test_nothing_there(benchmark, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("")
    with pytest.raises(DataError) as caught:
        benchmark(data_dir=root).open()
    found = {"nowhere": "no such folder", "empty": "an empty folder", "a file": "a file, not"}
    for word in ("Looked for: train/image/0.npy", "Get it: ", "No data at hand?", "dataset=scenes"):
        assert word in str(caught.value)
    assert found.get(root, "data_dir=null") in str(caught.value)


def test_raw_file_of_nyuv2_is_refused(tmp_path):
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"labeled\.mat.*894 classes and no normals"):
        NYUv2(data_dir=tmp_path).open()


@pytest.mark.skipif(os.name != "posix", reason="a folder of another user")
def test_home_folder_in_a_path(mtan, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(mtan.parent))
    assert NYUv2(data_dir=f"~/{mtan.name}").open()["val"].read(0)["image"].shape == (3, *SIZE)
