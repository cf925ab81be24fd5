"""Ray-cast rooms: contact sheets and the colours of labels."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.scenes import PALETTE, decode
from benchmarks.scenes.generate import generate
from benchmarks.scenes.sheet import (
    colourise_depth,
    colourise_normal,
    colourise_segmentation,
    contact_sheet,
    prediction_sheet,
)
from mtl.errors import DataError

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "contact_sheet.py"


def test_segmentation_takes_the_palette_and_black():
    colours = colourise_segmentation(np.array([[0, 12], [-1, 4]]))
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours[0, 0], PALETTE[0])
    np.testing.assert_array_equal(colours[0, 1], PALETTE[12])
    np.testing.assert_array_equal(colours[1, 0], 0)


def test_depth_runs_from_yellow_to_violet_and_marks_holes():
    colours = colourise_depth(np.array([[[0.0, 0.01, 6.0, 60.0]]], dtype=np.float32), farthest=6.0)
    np.testing.assert_array_equal(colours[0, 0], 0)
    np.testing.assert_allclose(colours[0, 1].astype(int), (253, 231, 37), atol=3)
    np.testing.assert_array_equal(colours[0, 2:], [(68, 1, 84)] * 2)


def test_normals_map_to_colours():
    normal = np.array([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]], dtype=np.float32)
    np.testing.assert_array_equal(colourise_normal(normal)[0], [(255, 128, 128), (0, 0, 0)])


def test_sheet_has_one_row_a_picture_and_one_column_an_array():
    data = generate(2, 0, 32, 64, workers=0)
    sheet = contact_sheet(data, rows=2, zoom=1)
    assert sheet.width == 6 * 64
    assert sheet.height > 2 * 32
    fewer = contact_sheet({"image": data["image"], "depth": data["depth"]}, rows=1, zoom=3)
    assert fewer.width == 2 * 64 * 3
    for rows in (0, 3):
        with pytest.raises(ValueError, match="rows: expected 1 to 2"):
            contact_sheet(data, rows=rows)
    with pytest.raises(ValueError, match="zoom: expected 1 or more, got 0"):
        contact_sheet(data, rows=1, zoom=0)


def test_predictions_stand_beside_their_labels():
    targets = decode(generate(2, 0, 32, 32, workers=0), np.arange(2))
    scores = np.eye(13, dtype=np.float32)[np.maximum(targets["segmentation"], 0)]
    predictions = {
        "segmentation": scores.transpose(0, 3, 1, 2),
        "depth": np.maximum(targets["depth"], 0.1),
        "normal": 3 * targets["normal"],
    }
    sheet = np.asarray(prediction_sheet(targets["image"], predictions, targets, zoom=1))
    assert sheet.shape[1] == 7 * 32
    cells = sheet[14 : 14 + 64].reshape(64, 7, 32, 3).transpose(1, 0, 2, 3)
    labelled = (targets["segmentation"] >= 0).reshape(64, 32)
    np.testing.assert_array_equal(cells[1][labelled], cells[2][labelled])
    np.testing.assert_array_equal(cells[2][~labelled], 0)
    np.testing.assert_allclose(cells[5].astype(int), cells[6], atol=1)
    with pytest.raises(DataError, match=r"predictions: expected tasks from image, .* got pose"):
        prediction_sheet(targets["image"], {"pose": targets["depth"]}, targets)


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return runpy.run_path(str(SCRIPT))["main"]


def test_script_writes_a_picture(tmp_path, script):
    target = tmp_path / "sheet.png"
    assert script(["--count", "2", "--size", "32", "32", "--out", str(target)]) == 0
    with Image.open(target) as sheet:
        assert sheet.width == 6 * 32 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "30", "32", "--out", "x.png"], "error: height: expected a positive multiple"),
        (["--count", "0", "--out", "x.png"], "error: count: expected 1 or more, got 0"),
        (["--count", "1", "--size", "32", "32", "--out", "no/x.png"], "error: "),
    ],
)
def test_script_explains_errors(arguments, message, script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script(arguments) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not list(tmp_path.glob("*.png"))
