"""Diffusion data sets: fixed evaluation, fresh training noise, targets, folders, affinity."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.diffusion.base import Clean
from benchmarks.diffusion.features import PictureFeatures
from benchmarks.diffusion.gmm import DiffusionGMM
from benchmarks.diffusion.pictures import DiffusionDigits, DiffusionFolder
from mtl.diffusion import Denoiser, Diffusion, Intervals, ResidualMLP
from mtl.errors import ConfigError, DataError
from tests.support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from affinity import affinity


def gmm(**options):
    data = DiffusionGMM(
        Diffusion(), intervals=10, batch_size=20, val_draws=30, test_draws=40, **options
    )
    data.setup("fit")
    return data


def test_evaluation_is_drawn_once_for_all_runs():
    first, second, part = gmm(seed=0), gmm(seed=5), gmm()
    part.chosen = ["t300_399", "t500_599"]
    del part.trained
    part.setup("fit")
    batches = [next(iter(data.val_dataloader())) for data in (first, second)]
    for name in first.intervals.names:
        for a, b in zip(batches[0][0].get(name, ()), batches[1][0].get(name, ()), strict=True):
            assert torch.equal(a, b)
    whole = list(first.val_dataloader())
    counts = {n: sum(len(t[n]) for _, t in whole if n in t) for n in first.intervals.names}
    assert set(counts.values()) == {30}
    names = {name for _, targets in part.val_dataloader() for name in targets}
    assert names == {"t300_399", "t500_599"}
    rows = [*range(90, 120), *range(150, 180)]  # a specialist is tested on the very same samples
    for key, values in part.val_data.arrays.items():
        np.testing.assert_array_equal(values, first.val_data.arrays[key][rows])
    assert all(bool((noisy.gain == 1).all()) for inputs, _ in whole for noisy in inputs.values())


def test_targets_of_the_mixture_are_the_optimal_predictions():
    data = gmm()
    inputs, targets = next(iter(data.test_dataloader()))
    for name, noisy in inputs.items():
        abar = data.diffusion.alphas_cumprod[noisy.t]
        expected = data.mixture.optimal_eps(noisy.x.double(), abar).float()
        torch.testing.assert_close(targets[name], expected)


def test_training_batches():
    data = gmm(num_classes=0)
    clean = next(iter(data.train_dataloader()))
    assert isinstance(clean, Clean)
    assert clean.x.shape == (20, 2)
    inputs, targets = data.noised(clean, torch.Generator().manual_seed(0))
    assert list(inputs) == list(targets) == data.intervals.names
    assert all(len(target) == 2 for target in targets.values())
    again, _ = data.noised(clean, torch.Generator().manual_seed(0))
    other, _ = data.noised(clean, torch.Generator().manual_seed(1))
    name = data.intervals.names[0]
    assert torch.equal(inputs[name].x, again[name].x)
    assert not torch.equal(inputs[name].x, other[name].x)


def test_gain_is_on_prediction_and_target():
    data = DiffusionGMM(Diffusion(loss_weights="p2"), intervals=10, batch_size=20)
    data.setup("fit")
    clean = Clean(torch.zeros(20, 2), torch.zeros(20, dtype=torch.int64))
    inputs, targets = data.noised(clean, torch.Generator().manual_seed(0))
    for name, noisy in inputs.items():
        torch.testing.assert_close(noisy.gain, data.diffusion.gain[noisy.t])
        eps = noisy.x / data.diffusion.noise[noisy.t, None]
        torch.testing.assert_close(targets[name], noisy.gain[:, None] * eps)


def test_a_run_on_some_tasks_takes_their_part_of_a_batch():
    data = gmm()
    data.chosen = ["t0_99", "t100_199", "t200_299", "t300_399", "t400_499"]
    del data.trained
    data.setup("fit")
    assert len(next(iter(data.train_dataloader())).x) == 10
    assert len(data.train_dataloader()) == data.steps_per_epoch
    assert data.batch_size == 20


def test_labels_are_dropped():
    data = DiffusionDigits(
        Diffusion(), intervals=5, batch_size=1000, num_classes=10, label_dropout=0.3
    )
    data.setup("fit")
    clean = Clean(torch.zeros(1000, 1, 8, 8), torch.full((1000,), 4))
    inputs, _ = data.noised(clean, torch.Generator().manual_seed(0))
    labels = torch.cat([noisy.label for noisy in inputs.values()])
    assert set(labels.tolist()) == {4, 10}
    assert 0.25 < float((labels == 10).double().mean()) < 0.35
    assert data.no_label == 10


def test_digits():
    data = DiffusionDigits(Diffusion(), intervals=5)
    data.setup("fit")
    parts = {name: data.clean(name).x for name in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 1797
    assert data.shape == (1, 8, 8)
    assert parts["train"].min() == -1
    assert parts["train"].max() == 1
    quality = data.quality(parts["val"])
    noise = data.quality(torch.randn(150, 1, 8, 8))
    assert quality["frechet"] < noise["frechet"] / 10
    assert quality["precision"] > 0.6 > noise["precision"]
    assert data.sheet(parts["test"]).size == (400, 400)
    with pytest.raises(ConfigError, match="10"):
        DiffusionDigits(Diffusion(), num_classes=7).clean("train")


def test_a_folder_of_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (tmp_path / kind).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 255, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    data = DiffusionFolder(Diffusion(), data_dir=tmp_path, size=8, intervals=5, num_classes=2)
    parts = [data.clean(name).rows for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert sorted(row for part in parts for row in part) == list(range(20))
    batch = data.clean("train").__getitems__([0, 1])
    assert batch.x.shape == (2, 3, 8, 8)
    assert data.shape == (3, 8, 8)
    with pytest.raises(ConfigError, match="should be 2"):
        DiffusionFolder(Diffusion(), data_dir=tmp_path, num_classes=5).prepare_data()
    (tmp_path / "dogs" / "0.png").write_text("no picture")
    with pytest.raises(DataError, match=r"0\.png should be a readable picture"):
        data.reference(100)


def test_latents(tmp_path):
    np.save(tmp_path / "latents.npy", np.full((30, 4, 6, 6), 2.0, np.float16))
    np.save(tmp_path / "labels.npy", np.arange(30) % 3)
    data = DiffusionFolder(Diffusion(), data_dir=tmp_path / "latents.npy", scale=2.0, num_classes=3)
    data.prepare_data()
    assert data.shape == (4, 6, 6)
    batch = data.clean("train").__getitems__([0])
    assert bool((batch.x == 1).all())
    assert data.sample_range == float("inf")
    assert data.sheet(torch.zeros(3, 4, 6, 6)).size[0] > 0
    np.save(tmp_path / "latents.npy", np.zeros((30, 4)))
    with pytest.raises(DataError, match=r"\[n, C, H, W\]"):
        DiffusionFolder(Diffusion(), data_dir=tmp_path / "latents.npy").prepare_data()


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_missing_pictures(place, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        DiffusionFolder(Diffusion(), data_dir=tmp_path / place).prepare_data()
    assert all(word in str(error.value) for word in ("Looked for", "Found there", "Get it"))


def test_features_without_classes_are_principal_components():
    pictures = torch.randn(50, 1, 4, 4)
    extractor = PictureFeatures(pictures, torch.zeros(50))
    assert extractor(pictures).shape == (50, 16)


# -------------------------------------------------------------------------------------- affinity


def trained(steps=150):
    """A small denoiser of the mixture after a few steps."""
    torch.manual_seed(0)
    data = gmm()
    denoiser = Denoiser(ResidualMLP(2, width=16, blocks=2), data.diffusion)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    points = data.clean("train")
    for i in range(steps):
        clean = points.__getitems__(range(100 * i, 100 * i + 100))
        inputs, targets = data.noised(clean, torch.Generator().manual_seed(i))
        loss = sum((denoiser(inputs[n]) - targets[n]).square().mean() for n in inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser, points.__getitems__(range(200))


@pytest.fixture(scope="module")
def denoiser_and_samples():
    return trained()


def test_affinity_matrix(denoiser_and_samples):
    denoiser, clean = denoiser_and_samples
    matrix = affinity(denoiser, clean, Intervals(1000, 12))
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(matrix.diagonal(), 1)
    assert np.abs(matrix).max() <= 1 + 1e-6
    near = np.diagonal(matrix, 1).mean()
    assert near > np.diagonal(matrix, 8).mean() + 0.1


def test_affinity_in_blocks(denoiser_and_samples):
    denoiser, clean = denoiser_and_samples
    size = sum(p.numel() for p in denoiser.parameters())
    whole = affinity(denoiser, clean, Intervals(1000, 7))
    memory = 2.5 * 8 * size / 2**30  # blocks of two
    blocks = affinity(denoiser, clean, Intervals(1000, 7), memory=memory, batch=50)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)
    with pytest.raises(ConfigError, match="memory"):
        affinity(denoiser, clean, Intervals(1000, 7), memory=4 * size / 2**30)


def test_affinity_does_not_depend_on_the_scale_of_losses():
    class Doubled(Denoiser):
        def predict(self, x, t, label):
            return super().predict(x, t * 0, label)  # every bin the same input, but for noise

    torch.manual_seed(0)
    network = ResidualMLP(2, width=8, blocks=1)
    nn.init.normal_(network.leave.weight)
    clean = Clean(torch.zeros(50, 2), torch.zeros(50, dtype=torch.int64))

    class Same(Diffusion):
        def add_noise(self, clean, t, eps):
            return eps

    matrix = affinity(Doubled(network, Same()), clean, Intervals(1000, 3))
    np.testing.assert_allclose(matrix, 1.0, atol=1e-5)  # identical losses
