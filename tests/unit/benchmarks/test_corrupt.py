"""Labels spoilt on purpose: the right tasks, in the right way, the same in every epoch."""

import numpy as np
import pytest
import torch

from benchmarks.base import ArrayData
from benchmarks.corrupt import CorruptedData, Corruption
from mtl.errors import ConfigError

NAMES = ("a", "b", "c", "d", "e")


def data(count=40):
    y = np.arange(count, dtype=np.float32)[:, None]

    def decode(arrays):
        return torch.from_numpy(arrays["y"]), {
            "real": torch.from_numpy(arrays["y"]),
            "gappy": torch.where(torch.from_numpy(arrays["y"]) < 5, torch.nan, 1.0),
            "class": torch.from_numpy(arrays["y"][:, 0]).long() % 3,
        }

    return ArrayData({"y": y}, decode)


def labels(corrupted, name):
    return corrupted.__getitems__(list(range(len(corrupted))))[1][name]


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.1, 1), (0.4, 2), (0.7, 4)])
def test_a_share_of_the_tasks_is_chosen(fraction, count):
    chosen = Corruption(fraction=fraction).choose(NAMES)
    assert len(chosen) == count
    assert set(chosen) <= set(NAMES)
    assert chosen == Corruption(fraction=fraction).choose(NAMES)


def test_other_seeds_choose_other_tasks():
    assert len({Corruption(fraction=0.2, seed=s).choose(NAMES) for s in range(20)}) == 5


def test_named_tasks():
    assert Corruption(tasks=["c"]).choose(NAMES) == ("c",)
    with pytest.raises(ConfigError, match=r"name some of .*Got \['x'\]"):
        Corruption(tasks=["x"]).choose(NAMES)


@pytest.mark.parametrize("name", ["real", "class"])
def test_permuted_labels_stay_a_set_and_leave_their_samples(name):
    corrupted = CorruptedData(data(), [name], kind="permute", seed=1)
    before, after = labels(data(), name), labels(corrupted, name)
    assert torch.equal(before.flatten().sort()[0], after.flatten().sort()[0])
    assert (before != after).float().mean() > 0.4


def test_samples_and_other_tasks_stay():
    clean, corrupted = data(), CorruptedData(data(), ["real"], kind="negate", seed=0)
    inputs, targets = corrupted.__getitems__([3, 7])
    assert inputs.flatten().tolist() == [3, 7]
    assert targets["real"].flatten().tolist() == [-3, -7]
    assert torch.equal(targets["class"], clean.__getitems__([3, 7])[1]["class"])


@pytest.mark.parametrize("kind", ["permute", "noise"])
def test_a_sample_has_the_same_label_in_any_batch(kind):
    corrupted = CorruptedData(data(), ["real"], kind=kind, seed=2)
    whole = labels(corrupted, "real")
    assert torch.equal(corrupted.__getitems__([9, 4])[1]["real"], whole[[9, 4]])
    assert torch.equal(corrupted[4][1]["real"], whole[[4]])


def test_noise_has_the_moments_of_the_labels():
    corrupted = CorruptedData(data(2000), ["real"], kind="noise", seed=3)
    drawn = labels(corrupted, "real")
    probed = torch.arange(256.0)
    assert float(drawn.mean()) == pytest.approx(float(probed.mean()), abs=5)
    assert float(drawn.std()) == pytest.approx(float(probed.std()), rel=0.05)


def test_missing_labels_stay_missing():
    corrupted = CorruptedData(data(), ["gappy"], kind="noise", seed=0)
    assert labels(corrupted, "gappy").isnan().sum() == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 0.5, "kind": "swap"}, "kind"),
        ({}, "one of them"),
        ({"fraction": 0.5, "tasks": ["a"]}, "one of them"),
        ({"fraction": 1.0}, "fraction"),
        ({"fraction": -0.1}, "fraction"),
    ],
    ids=["kind", "neither", "both", "all", "negative"],
)
def test_wrong_options(options, words):
    with pytest.raises(ConfigError, match=words):
        Corruption(**options)


@pytest.mark.parametrize("kind", ["negate", "noise"])
def test_classes_cannot_be_negated(kind):
    with pytest.raises(ConfigError, match="kind=permute"):
        CorruptedData(data(), ["class"], kind=kind, seed=0)
