"""Batches of dense data: augmentation, sizes, order, and metrics against a slow reference."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.dense.cityscapes import Cityscapes
from benchmarks.dense.nyuv2 import NYUv2
from benchmarks.dense.transforms import SCALES, ScaleCropFlip, resize
from mtl.errors import ConfigError, DataError
from tests.rooms import COUNTS, SIZE, write

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")


@pytest.fixture(scope="module")
def mtan(tmp_path_factory):
    return write("mtan", tmp_path_factory.mktemp("mtan"))


def ready(root, **options):
    benchmark = NYUv2(data_dir=root, **{"batch_size": 2, **options})
    benchmark.setup("fit")
    return benchmark


class Draws:
    """In the place of a random generator: a chosen scale, corner and flip."""

    def __init__(self, scale, corner, flip):
        self._integers = iter([SCALES.index(scale), *corner])
        self._flip = flip

    def integers(self, high):
        value = next(self._integers)
        assert value < high
        return value

    def random(self):
        return 0.0 if self._flip else 1.0


def plane(height=12, width=18):
    """A picture whose content says where it is."""
    rows = torch.arange(height).view(-1, 1).expand(height, width).float()
    columns = torch.arange(width).view(1, -1).expand(height, width).float()
    normal = torch.zeros(3, height, width)
    normal[0], normal[2] = 0.6, 0.8
    normal[:, :2] = 0  # not valid
    return {
        "image": torch.stack([rows, columns, rows + columns]) / 64,
        "segmentation": (rows * width + columns).long(),
        "depth": 1 + rows[None],
        "normal": normal,
    }


@pytest.mark.parametrize("scale", SCALES[1:])
@pytest.mark.parametrize(("inverse", "power"), [(False, -1), (True, 1)])
def test_enlarged_crop(scale, inverse, power):
    before = plane()
    after = ScaleCropFlip(inverse_depth=inverse, unit_normals=True, centres=True)(
        before, Draws(scale, (1, 2), flip=False)
    )
    rows, columns = int(12 / scale), int(18 / scale)
    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in before.items()}
    # Aligned corners: the first and last pixels of the crop are those of the result.
    image = after["image"] * 64
    torch.testing.assert_close(image[0, :, 0], torch.linspace(1, rows, 12))
    torch.testing.assert_close(image[1, 0], torch.linspace(2, columns + 1, 18))
    kept = before["segmentation"][1 : 1 + rows, 2 : 2 + columns]
    assert set(after["segmentation"].unique().tolist()) == set(kept.flatten().tolist())
    assert after["segmentation"][0, 0] == kept[0, 0]
    torch.testing.assert_close(
        after["depth"][0].unique(), (1 + torch.arange(1.0, 1 + rows)) * scale**power
    )
    length = after["normal"].norm(dim=0)
    assert set(length.round(decimals=6).unique().tolist()) == {0, 1}


def test_reference_leaves_interpolated_normals_short():
    after = ScaleCropFlip()(plane(), Draws(1.5, (1, 2), flip=False))
    length = after["normal"].norm(dim=0)
    assert ((length > 0.01) & (length < 0.99)).any()


@pytest.mark.parametrize("scale", SCALES[1:])
def test_reference_is_the_public_code(scale):
    """MTAN's `RandomScaleCrop`, written down again: labels rounded down, not to the centre."""
    before, size = plane(24, 36), (24, 36)
    after = NYUv2.augmentations["reference"](before, Draws(scale, (1, 2), flip=False))
    cut = (..., slice(1, 1 + int(24 / scale)), slice(2, 2 + int(36 / scale)))
    for key, value in before.items():
        crop = value[cut].float().reshape(1, -1, int(24 / scale), int(36 / scale))
        smooth = {"mode": "bilinear", "align_corners": True}
        options = smooth if key in ("image", "normal") else {"mode": "nearest"}
        expected = F.interpolate(crop, size, **options).reshape(after[key].shape)
        expected = expected / scale if key == "depth" else expected
        torch.testing.assert_close(after[key], expected.to(after[key].dtype))
    corrected = NYUv2.augmentations["corrected"](before, Draws(scale, (1, 2), flip=False))
    assert not torch.equal(corrected["segmentation"], after["segmentation"])


@pytest.mark.parametrize("name", ["reference", "corrected"])
def test_flip(name):
    before = plane()
    after = NYUv2.augmentations[name](before, Draws(1.0, (0, 0), flip=True))
    for key in ("image", "segmentation", "depth"):
        assert torch.equal(after[key], before[key].flip(-1))
    assert torch.equal(after["normal"][0], -before["normal"][0].flip(-1))
    assert torch.equal(after["normal"][1:], before["normal"][1:].flip(-1))


def test_references_and_corrections_differ_where_they_say():
    def depth(augmentation):
        return augmentation(plane(), Draws(1.5, (0, 0), flip=False))["depth"].max().item()

    assert depth(NYUv2.augmentations["reference"]) == depth(NYUv2.augmentations["corrected"])
    reference = depth(Cityscapes.augmentations["reference"])
    assert depth(Cityscapes.augmentations["corrected"]) == pytest.approx(2.25 * reference)


def test_resize_takes_labels_as_they_are():
    before = plane()
    after = resize(before, (6, 9))
    assert after["image"].shape == (3, 6, 9)
    torch.testing.assert_close(after["image"].mean(), before["image"].mean(), rtol=0.02, atol=0)
    assert set(after["segmentation"].flatten().tolist()) <= set(range(12 * 18))
    assert torch.equal(after["depth"][0, :, 0], torch.arange(2.0, 13, 2))
    assert after["normal"].norm(dim=0).round(decimals=6).unique().tolist() == [0, 1]
    assert all(
        torch.equal(v, resize(before, (12, 18))[k]) for k, v in before.items() if k != "image"
    )


def test_batches_have_one_form(mtan):
    benchmark = ready(mtan, resize=[16, 48], limit=5, batch_size=3)
    inputs, targets = next(iter(benchmark.train_dataloader()))
    assert (inputs.shape, inputs.dtype) == ((3, 3, 16, 48), torch.float32)
    assert {k: (*v.shape[1:], v.dtype) for k, v in targets.items()} == {
        "segmentation": (16, 48, torch.int64),
        "depth": (1, 16, 48, torch.float32),
        "normal": (3, 16, 48, torch.float32),
    }
    assert len(benchmark.train_data) == len(benchmark.test_data) == 5
    assert benchmark.val_data is benchmark.test_data


def test_holdout_takes_validation_from_the_training_split(mtan):
    benchmark, whole = ready(mtan, holdout=0.34), ready(mtan)
    held, kept = set(benchmark.val_data.indices), set(benchmark.train_data.indices)
    assert len(held) == 3
    assert held.isdisjoint(kept)
    assert held | kept == set(whole.train_data.indices) == set(range(COUNTS["train"]))
    assert benchmark.val_data.source.files == benchmark.train_data.source.files
    assert not benchmark.val_is_test
    assert whole.val_is_test
    assert ready(mtan, holdout=0.34, seed=7).val_data.indices == benchmark.val_data.indices


def batches(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def assert_equal(first, second):
    assert len(first) == len(second) > 0
    for (inputs, targets), (others, labels) in zip(first, second, strict=True):
        assert torch.equal(inputs, others)
        assert all(torch.equal(targets[name], labels[name]) for name in targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_in_the_middle_of_an_epoch(workers, mtan):
    """Also with workers, which read ahead: the same samples, with the same augmentation."""
    options = {"augment": "corrected", "num_workers": workers}
    whole = batches(ready(mtan, augment="corrected").train_dataloader(), epoch=3)
    loader = ready(mtan, **options).train_dataloader()
    loader.sampler.set_epoch(3)
    started = iter(loader)
    first = [next(started) for _ in range(2)]
    state = loader.state_dict()
    assert state == {"epoch": 3, "delivered": 2}
    resumed = ready(mtan, **options).train_dataloader()
    resumed.load_state_dict(state)
    assert_equal([*first, *resumed], whole)


def test_augmentation_depends_on_seed_and_epoch_alone(mtan):
    def depth(epoch=0, seed=0, augment="reference"):
        data = ready(mtan, augment=augment, seed=seed).train_data
        data.epoch = epoch
        return torch.cat([data[i][1]["depth"] for i in range(len(data))])

    assert torch.equal(depth(1), depth(1))
    plain = depth(augment=None)
    different = [depth(0), depth(1), depth(0, seed=1)]
    assert not any(torch.equal(plain, other) for other in different)
    assert not torch.equal(different[0], different[1])
    assert not torch.equal(different[0], different[2])


def test_evaluation_is_never_augmented(mtan):
    first, second = (ready(mtan, augment=augment) for augment in (None, "corrected"))
    assert_equal(list(first.test_dataloader()), list(second.test_dataloader()))


def test_last_small_batch(mtan):
    assert [len(x) for x, _ in ready(mtan).train_dataloader()] == [2, 2, 2, 2]
    whole = ready(mtan, drop_last=False).train_dataloader()
    assert [len(x) for x, _ in whole] == [2, 2, 2, 2, 1]
    assert sum(len(x) for x, _ in ready(mtan).test_dataloader()) == COUNTS["val"]
    with pytest.raises(ConfigError, match=r"batch_size.*at most the 9 training samples.*got 10"):
        ready(mtan, batch_size=10).train_dataloader()
    assert len(ready(mtan, batch_size=10, drop_last=False).train_dataloader()) == 1


def test_samples_of_two_sizes(mtan, tmp_path):
    import shutil

    root = shutil.copytree(mtan, tmp_path / "data")
    for path in root.glob("val/*/2.npy"):
        np.save(path, np.load(path)[:16])
    with pytest.raises(DataError, match=r"image.2\.npy.*\[32, 64\], got \[16, 64\].*resize"):
        list(ready(root).test_dataloader())
    assert len(list(ready(root, resize=SIZE).test_dataloader())) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resize": [16]}, "resize"),
        ({"resize": [0, 16]}, "resize"),
        ({"limit": 0}, "limit"),
        ({"augment": "flip"}, "augment.*reference, corrected"),
        ({"holdout": 1.0}, "holdout"),
        ({"holdout": -0.1}, "holdout"),
    ],
)
def test_wrong_options(options, named):
    with pytest.raises(ConfigError, match=named):
        NYUv2(**options)


# ------------------------------------------------------------------------------------- metrics


def slow_metrics(root, predictions):
    """From the files, pixel by pixel, by the definitions alone."""
    hits, unions = [0] * 13, [0] * 13
    right = labelled = 0
    absolute, relative, angles = [], [], []
    for index, (logits, depths, normals) in enumerate(predictions):
        label, depth, normal = (
            np.load(root / "val" / name / f"{index}.npy").astype(float)
            for name in ("label", "depth", "normal")
        )
        for y in range(label.shape[0]):
            for x in range(label.shape[1]):
                truth, guess = int(label[y, x]), int(np.argmax(logits[:, y, x]))
                if truth >= 0:
                    labelled += 1
                    right += truth == guess
                    hits[truth] += truth == guess
                    unions[truth] += 1
                    unions[guess] += truth != guess
                if depth[y, x, 0] > 0:
                    absolute.append(abs(depths[0, y, x] - depth[y, x, 0]))
                    relative.append(absolute[-1] / depth[y, x, 0])
                if any(normal[y, x] != 0):
                    guess = normals[:, y, x] / math.hypot(*normals[:, y, x])
                    cosine = float(guess @ normal[y, x] / math.hypot(*normal[y, x]))
                    angles.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    angles = np.array(angles)
    return {
        "segmentation": {
            "miou": np.mean([h / u for h, u in zip(hits, unions, strict=True) if u]),
            "pixel_accuracy": right / labelled,
        },
        "depth": {"absolute_error": np.mean(absolute), "relative_error": np.mean(relative)},
        "normal": {
            "mean_angle": np.mean(angles),
            "median_angle": np.median(angles),
            "within_11_25": np.mean(angles < 11.25),
            "within_22_5": np.mean(angles < 22.5),
            "within_30": np.mean(angles < 30),
        },
    }


@pytest.mark.parametrize("batch_size", [1, 3])
def test_metrics_against_a_slow_reference(batch_size, mtan):
    """Global, whatever the batches; two classes are neither there nor predicted."""
    benchmark = ready(mtan)
    benchmark.batch_size = batch_size
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(COUNTS["val"], 13, *SIZE, generator=generator)
    logits[:, [0, 10]] = -100.0
    depths = 3 * torch.rand(COUNTS["val"], 1, *SIZE, generator=generator)
    wanted = torch.cat([targets["normal"] for _, targets in benchmark.test_dataloader()])
    normals = wanted + 0.3 * torch.randn(wanted.shape, generator=generator)
    predictions = {"segmentation": logits, "depth": depths, "normal": normals}
    found, start = {}, 0
    tasks = benchmark.tasks(lambda size: torch.nn.Conv2d(1, size, 1))
    for inputs, targets in benchmark.test_dataloader():
        rows = slice(start, start := start + len(inputs))
        for task in tasks:
            for metric in task.metrics.values():
                metric.update(predictions[task.name][rows], targets[task.name])
    for task in tasks:
        found[task.name] = {key: float(metric.compute()) for key, metric in task.metrics.items()}
    expected = slow_metrics(
        mtan, list(zip(*(v.numpy() for v in predictions.values()), strict=True))
    )
    for task, values in expected.items():
        for key, value in values.items():
            close = 0.01 if key == "median_angle" else 1e-6 * value  # its histogram's bins
            assert found[task][key] == pytest.approx(value, abs=close), key
