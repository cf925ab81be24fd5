"""Ray-cast rooms: what `draw` promises about pictures and labels."""

import numpy as np
import pytest

from benchmarks.scenes import CLASSES, PALETTE, draw
from benchmarks.scenes.layout import build_room
from benchmarks.scenes.raycast import SHELL_FACES, cast
from benchmarks.scenes.render import find_edges, render
from benchmarks.scenes.spec import LABEL
from mtl.errors import MTLError

SHAPES = {
    "image": (np.float32, (3,)),
    "segmentation": (np.int64, ()),
    "depth": (np.float32, (1,)),
    "normal": (np.float32, (3,)),
    "edge": (np.float32, (1,)),
    "albedo": (np.float32, (3,)),
}


@pytest.fixture(scope="module")
def samples():
    return [draw(seed=5, index=index) for index in range(80)]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_classes_are_the_13_of_nyuv2_in_order():
    assert (
        *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
        *("picture", "sofa", "table", "tv", "wall", "window"),
    ) == CLASSES
    assert PALETTE.shape == (13, 3)
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == 13


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 64)])
def test_types_shapes_and_ranges(size):
    sample = draw(0, 1, *size)
    assert sample.keys() == SHAPES.keys()
    for name, (dtype, channels) in SHAPES.items():
        assert sample[name].dtype == dtype, name
        assert sample[name].shape == (*channels, *size), name
        assert np.isfinite(sample[name]).all(), name
    for name in ("image", "albedo"):
        assert 0 <= sample[name].min() <= sample[name].max() <= 1
    assert -1 <= sample["segmentation"].min() <= sample["segmentation"].max() < len(CLASSES)
    assert 0 <= sample["depth"].min() <= sample["depth"].max() < 10
    assert set(np.unique(sample["edge"])) <= {0.0, 1.0}


def test_normals_are_unit_or_invalid_together_with_depth(samples):
    for sample in samples:
        length = np.linalg.norm(sample["normal"], axis=0)
        valid = sample["depth"][0] > 0
        np.testing.assert_allclose(length[valid], 1, atol=1e-5)
        assert (length[~valid] == 0).all()


def test_visible_surfaces_face_the_camera():
    rng = np.random.default_rng(2)
    for _ in range(10):
        room = build_room(rng)
        hits = cast(room, 64, 64)
        assert ((hits.rays * hits.normal).sum(axis=0) < 0).all()


def test_drawing_again_gives_the_same_picture_in_any_order():
    forward = [draw(3, index) for index in range(4)]
    backward = [draw(3, index) for index in reversed(range(4))][::-1]
    for first, second in zip(forward, backward, strict=True):
        assert_same(first, second)


def test_seed_and_index_change_the_picture():
    base = draw(0, 0)["image"]
    assert not np.array_equal(base, draw(1, 0)["image"])
    assert not np.array_equal(base, draw(0, 1)["image"])
    assert not np.array_equal(draw(0, 1)["image"], draw(1, 0)["image"])


def test_sensor_only_removes_labels():
    for index in range(5):
        seen, exact = draw(0, index), draw(0, index, sensor=False)
        for name in ("image", "albedo", "edge"):
            np.testing.assert_array_equal(seen[name], exact[name])
        valid = seen["depth"] > 0
        assert 0.5 < valid.mean() < 1
        assert (exact["depth"] > 0).all()
        np.testing.assert_array_equal(seen["depth"][valid], exact["depth"][valid])
        labelled = seen["segmentation"] >= 0
        assert (exact["segmentation"] >= 0).all()
        np.testing.assert_array_equal(
            seen["segmentation"][labelled], exact["segmentation"][labelled]
        )


def angles(first, second):
    """Angles in degrees between vectors [3, ...]."""
    first = first / np.linalg.norm(first, axis=0)
    second = second / np.linalg.norm(second, axis=0)
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(first - second, axis=0) / 2, 0, 1)))


def test_normals_agree_with_finite_differences_of_depth():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(12):
        room = build_room(rng)
        hits = cast(room, 64, 64)
        sample = render(room, hits, rng, sensor=False)
        focal = room.camera.focal(64)
        column, row = np.meshgrid(np.arange(64) + 0.5 - 32, 32 - 0.5 - np.arange(64))
        depth = sample["depth"][0].astype(np.float64)
        points = np.stack([column / focal * depth, row / focal * depth, -depth])
        to_right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
        to_top = points[:, :-2, 1:-1] - points[:, 2:, 1:-1]
        smooth = ~find_edges(hits)[1:-1, 1:-1]
        label = sample["normal"].astype(np.float64)[:, 1:-1, 1:-1]
        errors.append(angles(np.cross(to_right, to_top, axis=0), label)[smooth])
    errors = np.concatenate(errors)
    assert np.median(errors) < 0.1
    assert np.quantile(errors, 0.9) < 0.5


def test_camera_frame_has_y_up_and_z_towards_the_viewer(samples):
    for sample in samples:
        valid = sample["depth"][0] > 0
        floor = valid & (sample["segmentation"] == LABEL["floor"])
        ceiling = valid & (sample["segmentation"] == LABEL["ceiling"])
        if floor.any():
            assert np.median(sample["normal"][1][floor]) > 0.5
        if ceiling.any():
            assert np.median(sample["normal"][1][ceiling]) < -0.5


def test_walls_floor_and_ceiling_lie_on_the_room():
    rng = np.random.default_rng(4)
    room = build_room(rng)
    hits = cast(room, 64, 64)
    points = room.camera.position[:, None, None] + hits.depth * hits.rays
    size = np.array(room.size)
    for face in range(SHELL_FACES):
        axis, at_end = divmod(face, 2)
        on_face = hits.instance == face
        expected = size[axis] if at_end else 0.0
        np.testing.assert_allclose(points[axis][on_face], expected, atol=1e-4)
    assert (points.min(axis=(1, 2)) > -1e-3).all()
    assert (points.max(axis=(1, 2)) < size + 1e-3).all()


def test_label_shares_have_a_long_tail_with_every_class(samples):
    labels = np.stack([sample["segmentation"] for sample in samples])
    share = {name: (labels == LABEL[name]).mean() for name in CLASSES}
    assert min(share.values()) > 0.001
    assert 0.3 < share["wall"] < 0.55
    assert 0.08 < share["floor"] < 0.25
    assert 0.005 < share["ceiling"] < 0.12
    assert max(share.values()) == share["wall"]
    assert 0.01 < (labels < 0).mean() < 0.12


def test_rooms_are_furnished(samples):
    structure = [LABEL[name] for name in ("wall", "floor", "ceiling")]
    for sample in samples:
        labels = sample["segmentation"]
        assert len(np.unique(labels[labels >= 0])) >= 4
        assert (~np.isin(labels, [*structure, -1])).mean() > 0.08


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 60, 64), "height: expected a positive multiple of 32, got 60; use for example 64"),
        ((0, 0, 64, 0), "width: expected a positive multiple of 32, got 0; use for example 32"),
        ((0, 0, -32, 64), "height: expected"),
        ((-1, 0), "seed: expected 0 or more, got -1"),
        ((0, -2), "index: expected 0 or more, got -2"),
    ],
)
def test_bad_requests_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        draw(*arguments)
    assert isinstance(caught.value, MTLError)
