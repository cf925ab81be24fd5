"""What sets data apart from the published ones: told, and part of the protocol."""

import shutil
import warnings

import numpy as np
import pytest

from benchmarks.dense.cityscapes import Cityscapes
from benchmarks.dense.nyuv2 import NYUv2
from tests.rooms import SIZE, write

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")


@pytest.fixture(scope="module")
def mtan(tmp_path_factory):
    return write("mtan", tmp_path_factory.mktemp("mtan"))


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    return write("cityscapes", tmp_path_factory.mktemp("cityscapes"))


def test_other_counts_than_published_are_told(mtan):
    with pytest.warns(UserWarning, match="Results do not compare") as told:
        NYUv2(data_dir=mtan).prepare_data()
    texts = [str(warning.message) for warning in told]
    assert [text.split(". Results")[0] for text in texts] == [
        "NYUv2 train samples: expected 795, got 9",
        "NYUv2 size: expected [288, 384], got [32, 64]",
        "NYUv2 val samples: expected 654, got 5",
    ]


def test_departures_are_known_after_setup(mtan, cityscapes, tmp_path):
    made = NYUv2(data_dir=mtan)
    made.setup("fit")
    assert made.departures == {"train samples": 9, "val samples": 5, "size": list(SIZE)}
    made.published = made.departures
    made.setup("fit")
    assert made.departures == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.prepare_data()
    streets = Cityscapes(data_dir=cityscapes)
    streets.setup("fit")
    assert streets.departures == made.published  # and inverse depth


def test_depth_in_metres_for_cityscapes_is_told(cityscapes, tmp_path):
    root = shutil.copytree(cityscapes, tmp_path / "data")
    path = root / "val" / "depth" / "0.npy"
    np.save(path, 20 * np.load(path))
    with pytest.warns(UserWarning, match=r"depth: expected inverse depth of at most 1, got more"):
        Cityscapes(data_dir=root).prepare_data()
