"""Every method against a naive implementation in the coordinates of the gradients."""

import math

import pytest
import torch

from mtl import Balancer, Step
from mtl.aggregation import GradDrop, MGDAWeighting, PCGradWeighting
from mtl.errors import ConfigError
from mtl.scalarization import (
    DynamicWeightAverage,
    EqualWeighting,
    RandomLossWeighting,
    UncertaintyWeighting,
)
from mtl.transforms import Log
from tests.unit.core.toy import normal

CPU = torch.device("cpu")


def conflicting(count, width=8, seed=0):
    rows = normal(count, width, seed=seed)
    return rows - 0.9 * rows.mean(0)


# ----------------------------------------------------------------------------------- scalarizers


def test_equal_weighting_is_the_sum():
    assert float(EqualWeighting()(torch.tensor([1.0, 2.0, 4.0]))) == 7.0


def test_uncertainty_weighting():
    method = UncertaintyWeighting(3, initial=-0.5).double()
    assert method.log_variance.tolist() == [-0.5] * 3
    logs = [0.3, -1.2, 0.0]
    with torch.no_grad():
        method.log_variance.copy_(torch.tensor(logs))
    losses = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    value = method(losses)
    logs = method.log_variance.tolist()
    expected = sum(0.5 * (math.exp(-s) * v + s) for s, v in zip(logs, losses.tolist(), strict=True))
    assert value.item() == pytest.approx(expected, rel=1e-12)
    value.backward()
    assert losses.grad.tolist() == pytest.approx([0.5 * math.exp(-s) for s in logs])
    assert method.log_variance.grad.tolist() == pytest.approx(
        [0.5 - 0.5 * math.exp(-s) * v for s, v in zip(logs, losses.tolist(), strict=True)]
    )


def test_uncertainty_of_absent_tasks_gets_no_gradient():
    method = UncertaintyWeighting(3)
    p = torch.nn.Parameter(torch.ones(2))
    balancer = Balancer(method)
    step = Step({"a": p.sum(), "b": None, "c": p.square().sum()}, shared=[p])
    report = balancer.backward(step)
    assert method.log_variance.grad.tolist() == [0.5 - 1.0, 0.0, 0.5 - 1.0]
    assert report.weights.tolist() == [0.5, 0.5]


def naive_dwa(epochs, temperature):
    """Weights in every epoch from the lists of its losses by task (an empty list: absent)."""
    means = [[sum(x) / len(x) if x else None for x in epoch] for epoch in epochs]
    for t in range(len(epochs)):
        ratios = []
        for i in range(len(epochs[t])):
            two = t >= 2 and means[t - 1][i] is not None and means[t - 2][i] is not None
            ratios.append(means[t - 1][i] / means[t - 2][i] if two else 1.0)
        here = [i for i, x in enumerate(epochs[t]) if x]
        total = sum(math.exp(ratios[i] / temperature) for i in here)
        yield {i: len(here) * math.exp(ratios[i] / temperature) / total for i in here}


def test_dynamic_weight_average():
    full = [
        [[4.0, 3.0], [1.0, 1.0], [5.0, 7.0]],
        [[2.0, 1.0], [0.9, 0.9], [6.0, 8.0]],
        [[1.0, 0.5], [], [6.0, 6.0]],
        [[0.4, 0.3], [0.8, 0.2], [4.0, 5.0]],
        [[0.2, 0.1], [0.7, 0.1], [3.0, 3.0]],
        [[0.2, 0.2], [0.6, 0.3], [1.0, 9.0]],
    ]
    balancer = Balancer(DynamicWeightAverage(3, temperature=0.8))
    expected = naive_dwa(full, 0.8)
    seen = []
    for epoch, (losses, weights) in enumerate(zip(full, expected, strict=True)):
        balancer.on_epoch_start(epoch)
        for k in range(2):
            p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            step = Step(
                {str(i): x[k] * p.sum() if x else None for i, x in enumerate(losses)}, shared=[p]
            )
            report = balancer.backward(step)
            assert report.weights.tolist() == pytest.approx(list(weights.values()), rel=1e-5)
        seen.append(report.weights)
    assert seen[0].tolist() == pytest.approx([1.0] * 3)
    assert seen[1].tolist() == pytest.approx([1.0] * 3)
    assert float(seen[5].std()) > 0.01


def test_random_loss_weighting_is_a_softmax_of_normals():
    method = RandomLossWeighting(seed=3)
    losses = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    found = torch.stack([torch.autograd.grad(method(losses), losses)[0] for _ in range(2000)])
    torch.testing.assert_close(found.sum(1), torch.ones(2000, dtype=torch.float64))
    reference = RandomLossWeighting(seed=3)
    first = torch.randn(3, generator=reference.generator(CPU)).exp()
    torch.testing.assert_close(found[0], (first / first.sum()).double())
    # log w_i - log w_j = z_i - z_j is normal with variance 2.
    difference = found[:, 0].log() - found[:, 1].log()
    assert float(difference.mean()) == pytest.approx(0, abs=0.15)
    assert float(difference.var()) == pytest.approx(2, abs=0.35)


def test_log():
    losses = torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64, requires_grad=True)
    values = Log(eps=1e-4)(losses)
    assert values.tolist() == pytest.approx([math.log(v + 1e-4) for v in losses.tolist()])
    (slopes,) = torch.autograd.grad(values.sum(), losses)
    assert slopes.tolist() == pytest.approx([1 / (v + 1e-4) for v in losses.tolist()])
    assert float(Log()(torch.zeros(1))) == pytest.approx(math.log(1e-8))


# ---------------------------------------------------------------------------- Gramian and Jacobian


def naive_pcgrad(rows, orders):
    """Projections of the gradient vectors themselves."""
    total = torch.zeros_like(rows[0])
    for i, order in enumerate(orders):
        vector = rows[i].clone()
        for j in order:
            product = vector @ rows[j]
            if j != i and product < 0:
                vector = vector - product / (rows[j] @ rows[j]) * rows[j]
        total += vector
    return total


def visiting_orders(count, seed):
    """The orders of the first draw: the other tasks by a uniform score."""
    scores = torch.rand(count, count, generator=PCGradWeighting(seed=seed).generator(CPU))
    return [[j for j in row.argsort().tolist() if j != i] for i, row in enumerate(scores)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_pcgrad_projects_vectors(count, seed):
    rows = conflicting(count, seed=seed)
    weights = PCGradWeighting(seed=seed)(rows @ rows.T)
    assert bool((weights >= 1).all())
    expected = naive_pcgrad(rows, visiting_orders(count, seed))
    torch.testing.assert_close(weights @ rows, expected)
    if count > 2:
        turned = naive_pcgrad(rows, [order[::-1] for order in visiting_orders(count, seed)])
        assert not torch.allclose(expected, turned)


def test_pcgrad_visits_in_every_order():
    method = PCGradWeighting(seed=0)
    rows = conflicting(3)
    found = {tuple(method(rows @ rows.T).tolist()) for _ in range(100)}
    assert len(found) == 8  # two orders for each of three tasks


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_agrees_with_torchjd(seed):
    reference = pytest.importorskip("torchjd.aggregation").PCGradWeighting()
    for rows in (conflicting(2, seed=seed), normal(2, 8, seed=seed)):
        gram = rows @ rows.T
        torch.testing.assert_close(PCGradWeighting(seed=0)(gram), reference(gram).to(gram))


def test_pcgrad_without_conflict_is_the_sum():
    rows = normal(4, 8).abs()
    assert PCGradWeighting(seed=0)(rows @ rows.T).tolist() == [1.0] * 4


def naive_graddrop(rows, draws, leak):
    result = []
    for k in range(rows.shape[1]):
        column = rows[:, k].tolist()
        magnitude = sum(abs(g) for g in column)
        purity = 0.5 * (1 + sum(column) / magnitude) if magnitude else 0.5
        total = 0.0
        for g in column:
            keep = (g > 0 and purity > draws[k]) or (g < 0 and purity < draws[k])
            total += g if keep else leak * g
        result.append(total)
    return torch.tensor(result, dtype=rows.dtype)


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_graddrop(count, leak):
    rows = conflicting(count, width=50, seed=count)
    rows[:, 7] = 0.0
    draws = torch.empty(50, dtype=rows.dtype)
    draws.uniform_(generator=GradDrop(seed=4).generator(CPU))
    found = GradDrop(leak=leak, seed=4)(rows)
    torch.testing.assert_close(found, naive_graddrop(rows, draws.tolist(), leak))
    if leak == 1.0 or count == 1:
        torch.testing.assert_close(found, rows.sum(0))


def test_graddrop_keeps_one_sign_with_the_probability_of_its_share():
    rows = torch.tensor([[3.0], [-1.0]], dtype=torch.float64).repeat(1, 20000)
    found = GradDrop(seed=0)(rows)
    assert set(found.tolist()) == {3.0, -1.0}
    assert float((found > 0).double().mean()) == pytest.approx(0.75, abs=0.015)


def test_mgda_by_hand():
    rows = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(
        MGDAWeighting()(rows @ rows.T), torch.tensor([0.9, 0.1], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: GradDrop(leak=-0.1),
        lambda: GradDrop(leak=1.1),
        lambda: DynamicWeightAverage(2, temperature=0.0),
        lambda: Log(eps=-1.0),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()


def test_graddrop_in_blocks_of_columns():
    rows = torch.randn(5, 20_001)
    combiner = GradDrop(seed=3)
    draw = torch.empty(20_001).uniform_(generator=GradDrop(seed=3).generator(rows.device))
    purity = 0.5 * (1 + rows.sum(0) / rows.abs().sum(0))
    kept = torch.where((purity > draw) == (rows > 0), rows, 0.0)
    torch.testing.assert_close(combiner(rows), kept.sum(0))
