"""GradVac in the coordinates of vectors, its state, and Krum by brute force."""

import itertools

import pytest
import torch
import torchjd.aggregation as library

from benchmarks.accuracy.families import FAMILIES, rows_of
from mtl.aggregation import GradVacWeighting, KrumWeighting, PCGradWeighting
from mtl.errors import ConfigError
from tests.unit.aggregation.families import direction

CPU = torch.device("cpu")


def naive_gradvac(rows, targets, orders, beta, like):
    """Algorithm 1 on the gradient vectors themselves; changes `targets`."""
    total = torch.zeros_like(rows[0])
    for i, order in enumerate(orders):
        vector = rows[i].clone()
        for j in order:
            if j == i:
                continue
            target = targets[i, j].clone()
            cosine = vector @ rows[j] / (vector.norm() * rows[j].norm())
            if cosine < target:
                sine, target_sine = (1 - cosine**2).sqrt(), (1 - target**2).sqrt()
                factor = vector.norm() * (target * sine - cosine * target_sine)
                vector = vector + factor / (rows[j].norm() * target_sine) * rows[j]
                turned = vector @ rows[j] / (vector.norm() * rows[j].norm())
                assert float(turned) == pytest.approx(float(target), abs=1e-7)
            if cosine < target or like != "libmtl":
                targets[i, j] += beta * (cosine - target)
        total += vector
    return total


@pytest.mark.parametrize("family", FAMILIES[:-1])  # two of low rank are parallel
@pytest.mark.parametrize("like", ["paper", "libmtl"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_gradvac_golden(count, like, family):
    method = GradVacWeighting(count, beta=0.3, like=like, seed=4).double()
    twin = GradVacWeighting(count, seed=4)
    targets = torch.zeros(count, count, dtype=torch.float64)
    for step in range(5):
        rows = rows_of(family, count, seed=step)
        scores = torch.rand(count, count, generator=twin.generator(CPU))
        orders = [[j for j in row.argsort().tolist() if j != i] for i, row in enumerate(scores)]
        expected = naive_gradvac(rows, targets, orders, 0.3, like)
        found = direction(method, rows)
        assert float((found - expected).norm()) < 1e-6 * float(rows.norm(dim=1).sum())
        torch.testing.assert_close(method.targets, targets, rtol=1e-6, atol=1e-7)


def test_the_first_step_of_gradvac_is_pcgrads_without_moving_targets():
    for seed in range(10):
        rows = rows_of("conflict", 2, seed)
        gradvac = GradVacWeighting(2, beta=0.0, seed=seed)
        torch.testing.assert_close(
            direction(gradvac, rows), direction(PCGradWeighting(seed=seed), rows)
        )


def test_gradvac_agrees_with_torchjd():
    """With two tasks there is one order."""
    reference = library.GradVacWeighting(beta=0.5, eps=0.0)
    method = GradVacWeighting(2, beta=0.5, like="torchjd").double()
    for seed in range(100):
        gram = rows_of(FAMILIES[seed % 3], 2, seed)
        gram = gram @ gram.T
        torch.testing.assert_close(method(gram), reference(gram), rtol=1e-8, atol=1e-8)


def test_gradvac_goes_on_from_its_state():
    method = GradVacWeighting(4, beta=0.5, seed=1)
    for seed in range(3):
        direction(method, rows_of("aligned", 4, seed))
    state = method.state_dict()
    fresh = GradVacWeighting(4, beta=0.5, seed=9)
    fresh.load_state_dict(state)
    for seed in range(3, 6):
        rows = rows_of("gauss", 4, seed)
        assert torch.equal(direction(method, rows), direction(fresh, rows))


def test_gradvac_leaves_the_targets_of_absent_tasks():
    method = GradVacWeighting(4, beta=0.5, seed=1)
    direction(method, rows_of("aligned", 4))
    before = method.targets.clone()
    method.present = torch.tensor([0, 3])
    direction(method, rows_of("gauss", 2))
    changed = (method.targets != before).nonzero().tolist()
    assert changed == [[0, 3], [3, 0]]


def test_gradvac_leaves_the_targets_of_zero_gradients():
    method = GradVacWeighting(3, beta=0.5, seed=1)
    rows = rows_of("gauss", 3)
    rows[1] = 0
    weights = method(rows @ rows.T)
    assert float(weights[1]) == 1.0
    assert not method.targets[1].any()
    assert not method.targets[:, 1].any()


# --------------------------------------------------------------------------------------------- Krum


def naive_krum(rows, byzantine, power):
    scores = []
    for i in range(len(rows)):
        others = [(rows[i] - rows[j]).norm() ** power for j in range(len(rows)) if j != i]
        scores.append(sum(sorted(others)[: len(rows) - byzantine - 2]))
    return torch.stack(scores)


@pytest.mark.parametrize("family", ["gauss", "aligned", "conflict", "spread100"])
@pytest.mark.parametrize(("byzantine", "selected"), list(itertools.product([0, 1, 3], [1, 2, 4])))
def test_krum_golden(byzantine, selected, family):
    for seed in range(5):
        rows = rows_of(family, 7, seed)
        method = KrumWeighting(num_byzantine=byzantine, num_selected=selected)
        weights = method(rows @ rows.T)
        kept = naive_krum(rows, byzantine, 2).argsort()[:selected]
        expected = torch.zeros(7, dtype=torch.float64)
        expected[kept] = 1 / selected
        torch.testing.assert_close(weights, expected)


def test_krum_drops_an_outlier():
    rows = rows_of("aligned", 6)
    rows[2] = -10 * rows[2]
    weights = KrumWeighting(num_byzantine=1, num_selected=5)(rows @ rows.T)
    assert weights.tolist() == pytest.approx([0.2, 0.2, 0.0, 0.2, 0.2, 0.2])


def test_krum_squares_distances_and_torchjd_does_not():
    reference = library.KrumWeighting(n_byzantine=1, n_selected=2)
    differences = 0
    for seed in range(200):
        rows = rows_of("gauss", 6, seed, width=3)
        gram = rows @ rows.T
        found = KrumWeighting(num_byzantine=1, num_selected=2, like="torchjd")(gram)
        torch.testing.assert_close(found, reference(gram))
        paper = KrumWeighting(num_byzantine=1, num_selected=2)(gram)
        differences += not torch.equal(found, paper)
    assert differences > 0


def test_krum_of_two_or_one():
    gram = torch.eye(2, dtype=torch.float64)
    assert KrumWeighting()(gram).tolist() == [1.0, 0.0]
    assert KrumWeighting(num_selected=3)(gram).tolist() == [0.5, 0.5]
    assert KrumWeighting()(gram[:1, :1]).tolist() == [1.0]


@pytest.mark.parametrize(
    "build",
    [
        lambda: GradVacWeighting(2, beta=1.1),
        lambda: GradVacWeighting(2, like="other"),
        lambda: KrumWeighting(num_byzantine=-1),
        lambda: KrumWeighting(num_selected=0),
        lambda: KrumWeighting(like="libmtl"),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()
