"""Ray-cast rooms: nothing stands in a wall or in something else."""

import itertools
import math

import numpy as np
import pytest

from benchmarks.scenes import decals, furniture, props
from benchmarks.scenes.layout import build_room
from benchmarks.scenes.materials import plain
from benchmarks.scenes.parts import Body
from benchmarks.scenes.placement import WALLS, Footprint, Placer, footprint
from benchmarks.scenes.spec import LABEL

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def rooms():
    rng = np.random.default_rng(0)
    return [build_room(rng) for _ in range(80)]


def height_range(body):
    low, high = body.bounds()
    return low[1], high[1]


def is_rug(body):
    return body.class_name == "floor"


def true_footprint(body):
    """Rectangle of the body's floor outline, also where it isn't centred on the origin."""
    low, high = body.bounds()
    middle_x, middle_z = (low[0] + high[0]) / 2, (low[2] + high[2]) / 2
    cosine, sine = math.cos(body.yaw), math.sin(body.yaw)
    x = body.position[0] + cosine * middle_x + sine * middle_z
    z = body.position[2] - sine * middle_x + cosine * middle_z
    return Footprint(x, z, (high[0] - low[0]) / 2, (high[2] - low[2]) / 2, body.yaw)


def test_everything_is_inside_the_room(rooms):
    for room in rooms:
        width, height, depth = room.size
        for body in room.bodies:
            place = true_footprint(body)
            reach_x, reach_z = place.reach(1.0, 0.0), place.reach(0.0, 1.0)
            assert reach_x - TOLERANCE <= place.x <= width - reach_x + TOLERANCE
            assert reach_z - TOLERANCE <= place.z <= depth - reach_z + TOLERANCE
            bottom, top = height_range(body)
            assert bottom > -TOLERANCE
            assert top < height + TOLERANCE


def test_nothing_cuts_anything_else(rooms):
    for room in rooms:
        solid = [body for body in room.bodies if not is_rug(body)]
        for first, second in itertools.combinations(solid, 2):
            if true_footprint(first).overlaps(true_footprint(second), -TOLERANCE):
                low_first, high_first = height_range(first)
                low_second, high_second = height_range(second)
                assert high_first <= low_second or high_second <= low_first


def test_camera_is_in_free_space(rooms):
    for room in rooms:
        x, y, z = room.camera.position.tolist()
        assert 0 < x < room.size[0]
        assert 0 < z < room.size[2]
        for body in room.bodies:
            bottom, top = height_range(body)
            assert not bottom < y < top or true_footprint(body).distance(x, z) > 0
        rotation = room.camera.rotation
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)


def test_every_class_is_built_and_rooms_are_not_empty(rooms):
    labels = {part.label for room in rooms for body in room.bodies for part in body.parts}
    assert labels == set(range(13)) - {LABEL["ceiling"]}
    assert min(len(room.bodies) for room in rooms) >= 4


def test_footprints_overlap_only_if_no_side_separates_them():
    square = Footprint(0.0, 0.0, 1.0, 1.0, 0.0)
    assert square.overlaps(Footprint(1.9, 0.0, 1.0, 1.0, 0.0))
    assert not square.overlaps(Footprint(2.1, 0.0, 1.0, 1.0, 0.0))
    assert square.overlaps(Footprint(2.1, 0.0, 1.0, 1.0, 0.0), gap=0.2)
    turned = Footprint(2.3, 0.0, 1.0, 1.0, math.pi / 4)
    assert square.overlaps(turned)
    assert not square.overlaps(Footprint(1.8, 1.8, 1.0, 1.0, math.pi / 4))


def test_distance_from_a_turned_footprint():
    bar = Footprint(0.0, 0.0, 2.0, 0.5, math.pi / 2)
    assert bar.distance(0.2, 1.5) == 0
    assert bar.distance(1.5, 0.0) == pytest.approx(1.0)
    assert bar.distance(0.0, 5.0) == pytest.approx(3.0)


@pytest.mark.parametrize("side", range(WALLS))
def test_furniture_against_a_wall_turns_its_back_to_it(side):
    rng = np.random.default_rng(side)
    placer = Placer(5.0, 2.5, 6.0)
    sofa = furniture.sofa(rng)
    assert placer.against_wall(sofa, rng, side)
    outward = np.array([math.sin(sofa.yaw), math.cos(sofa.yaw)])
    place = footprint(sofa)
    back = np.array([place.x, place.z]) - outward * place.half_z
    wall = {0: (1, 0.0), 1: (0, 0.0), 2: (1, 6.0), 3: (0, 5.0)}[side]
    assert abs(back[wall[0]] - wall[1]) == pytest.approx(0.03, abs=1e-6)


@pytest.mark.parametrize("side", range(WALLS))
def test_wall_items_keep_clear_of_each_other_and_of_furniture(side):
    rng = np.random.default_rng(side)
    placer = Placer(4.0, 2.5, 4.0)
    cabinet = next(c for c in iter(lambda: furniture.cabinet(rng), None) if c.bounds()[1][1] > 1.6)
    assert placer.against_wall(cabinet, rng, side)
    hung = [
        item for item in (decals.picture(rng) for _ in range(12)) if placer.hang(item, rng, side)
    ]
    assert 1 <= len(hung) < 12
    for first, second in itertools.combinations([cabinet, *hung], 2):
        low_first, high_first = height_range(first)
        low_second, high_second = height_range(second)
        apart = high_first <= low_second or high_second <= low_first
        thick = [true_footprint(body) for body in (first, second)]
        assert apart or not thick[0].overlaps(thick[1], gap=0.05)


def test_lamp_does_not_hang_into_furniture():
    rng = np.random.default_rng(0)
    placer = Placer(4.0, 2.4, 4.0)
    lamp = props.ceiling_lamp(rng, 2.4)
    wardrobe = Body("furniture")
    wardrobe.box((0.0, 1.05, 0.0), (1.0, 2.1, 0.6), plain(rng, (0.5, 0.5, 0.5)))
    assert placer.put(wardrobe, 1.0, 1.0, 0.0)
    assert not placer.suspend(lamp, 1.4, 1.0)
    assert placer.suspend(lamp, 2.5, 1.0)


def test_door_does_not_fit_a_wall_that_is_too_low():
    rng = np.random.default_rng(0)
    assert not Placer(4.0, 2.0, 4.0).hang(decals.door(rng), rng, 0)
