"""Wrong training labels of the two-digit data."""

import numpy as np
import pytest
import torch

from benchmarks.digits import MultiDigits
from mtl.errors import ConfigError
from mtl.report import protocol_of
from tests.support import compose_config


def labels(noise, part="train", seed=0):
    counts = {"train_count": 1000, "val_count": 50, "test_count": 50}
    data = MultiDigits(**counts, batch_size=50, label_noise=noise, seed=seed)
    data.setup("fit")
    return getattr(data, f"{part}_data").arrays["label"]


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_share_of_one_tasks_training_labels_is_wrong(share):
    clean, noisy = labels(None), labels({"right": share})
    assert np.array_equal(clean[:, 0], noisy[:, 0])
    assert (clean[:, 1] != noisy[:, 1]).mean() == share
    assert set(noisy[:, 1]) == set(range(10))
    for part in ("val", "test"):
        assert np.array_equal(labels(None, part), labels({"right": share}, part))


def test_labels_are_the_same_for_every_run_and_differ_between_tasks():
    noisy = labels({"left": 0.5, "right": 0.5})
    assert np.array_equal(noisy, labels({"left": 0.5, "right": 0.5}, seed=3))
    wrong = noisy != labels(None)
    assert not np.array_equal(wrong[:, 0], wrong[:, 1])
    assert torch.from_numpy(wrong).all(1).any()


def test_noise_is_part_of_the_protocol():
    plain, noisy = (
        protocol_of(compose_config("dataset=multidigits", *extra))
        for extra in ([], ["dataset.label_noise={right: 0.2}"])
    )
    assert plain != noisy


@pytest.mark.parametrize("noise", [{"middle": 0.2}, {"right": 1.2}, {"left": -0.1}])
def test_bad_shares(noise):
    with pytest.raises(ConfigError, match="`label_noise` should map some of"):
        labels(noise)
