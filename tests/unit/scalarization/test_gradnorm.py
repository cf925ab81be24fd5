"""GradNorm against autograd through the norms of the gradients themselves."""

import math

import pytest
import torch

from mtl import Balancer, Step
from mtl.errors import ConfigError
from mtl.scalarization import GradNorm
from tests.unit.core.toy import normal

NAMES = ("a", "b", "c")


def make_step(parameter, rows, offsets, present=NAMES):
    """Losses that are linear: their gradients are the rows."""
    losses = {}
    for name, row, offset in zip(NAMES, rows, offsets, strict=True):
        losses[name] = (row * parameter).sum() + offset if name in present else None
    return Step(losses, shared=[parameter])


def problem(count, seed=0):
    """Rows, and offsets that make all losses positive."""
    for i in range(count):
        rows = normal(3, 6, seed=seed + i) * torch.tensor([[1.0], [4.0], [0.2]])
        yield rows, [10.0 / (i + 1), 8.0, 9.0 + i]


def naive(history, alpha, lr, soft):
    """Weights at every step, from rows and `L / L(0)`; `soft`: they are m softmax(s)."""
    state = torch.nn.Parameter((torch.zeros if soft else torch.ones)(3, dtype=torch.float64))
    optimizer = torch.optim.Adam([state], lr=lr)
    for rows, ratios in history:
        weights = 3 * state.softmax(0) if soft else state * 1
        yield weights.detach()
        norms = torch.stack([(w * row).norm() for w, row in zip(weights, rows, strict=True)])
        target = norms.mean() * (ratios / ratios.mean()) ** alpha
        optimizer.zero_grad()
        (norms - target.detach()).abs().sum().backward()
        optimizer.step()
        if not soft:
            state.data *= 3 / state.data.sum()


def over(data, initial):
    initial = torch.tensor(initial, dtype=torch.float64)
    return [(rows, torch.tensor(losses, dtype=torch.float64) / initial) for rows, losses in data]


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_weights_over_steps(alpha):
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    balancer = Balancer(GradNorm(3, alpha=alpha, lr=0.05).double())
    data = list(problem(10))
    expected = naive(over(data, data[0][1]), alpha, 0.05, soft=False)
    for (rows, offsets), weights in zip(data, expected, strict=True):
        parameter.grad = None
        report = balancer.backward(make_step(parameter, rows, offsets))
        torch.testing.assert_close(report.weights, weights, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(parameter.grad, weights @ rows, rtol=1e-7, atol=1e-10)
    assert float(report.weights.std()) > 0.1


def test_weights_over_steps_as_in_libmtl():
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    balancer = Balancer(GradNorm(3, lr=0.05, like="libmtl").double())
    first, second = ([10.0, 8.0, 9.0], [20.0, 4.0, 9.0])
    balancer.on_epoch_start(0)
    rows = normal(3, 6)
    for offsets in (first, second):
        report = balancer.backward(make_step(parameter, rows, offsets))
        assert report.weights.tolist() == [1.0] * 3
    assert balancer.combine.initial_losses.tolist() == [15.0, 6.0, 9.0]
    balancer.on_epoch_start(1)
    data = list(problem(10))
    expected = naive(over(data, [15.0, 6.0, 9.0]), 1.5, 0.05, soft=True)
    for (rows, offsets), weights in zip(data, expected, strict=True):
        report = balancer.backward(make_step(parameter, rows, offsets))
        torch.testing.assert_close(report.weights, weights, rtol=1e-7, atol=1e-10)


def test_norms_become_equal_for_tasks_of_one_rate():
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    method = GradNorm(3, lr=0.01).double()
    balancer = Balancer(method)
    rows = normal(3, 6) * torch.tensor([[1.0], [4.0], [0.5]])
    for _ in range(1500):
        balancer.backward(make_step(parameter, rows, [5.0, 5.0, 5.0]))
    norms = method.weights * rows.norm(dim=1)
    assert float(norms.max() / norms.min()) < 1.1
    assert float(method.weights.sum()) == pytest.approx(3.0)


def test_heads_are_weighted():
    trunk = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    heads = {n: torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for n in "ab"}
    method = GradNorm(2).double()
    method.weights.copy_(torch.tensor([0.5, 1.5]))
    losses = {n: (trunk * head).sum() for n, head in heads.items()}
    step = Step(losses, shared=[trunk], specific={n: [head] for n, head in heads.items()})
    Balancer(method).backward(step)
    assert heads["a"].grad.tolist() == [0.5, 0.5]
    assert heads["b"].grad.tolist() == [1.5, 1.5]


def test_absent_tasks_keep_their_weight():
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    method = GradNorm(3, lr=0.1).double()
    balancer = Balancer(method)
    data = list(problem(4))
    for rows, offsets in data[:2]:
        balancer.backward(make_step(parameter, rows, offsets))
    kept = method.weights.clone()
    report = balancer.backward(make_step(parameter, *data[2], present=("a", "c")))
    torch.testing.assert_close(report.weights, kept[[0, 2]])
    assert method.weights[1] == kept[1]
    assert float(method.weights.sum()) == pytest.approx(3.0)
    assert bool((method.weights[[0, 2]] != kept[[0, 2]]).all())


def test_a_task_that_comes_late_takes_its_first_loss():
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    method = GradNorm(3).double()
    balancer = Balancer(method)
    rows = normal(3, 6)
    balancer.backward(make_step(parameter, rows, [1.0, 2.0, 3.0], present=("a", "c")))
    balancer.backward(make_step(parameter, rows, [4.0, 5.0, 6.0]))
    assert method.initial_losses.tolist() == [1.0, 5.0, 3.0]


def test_given_initial_losses():
    method = GradNorm(3, initial_losses=[math.log(10), 1.0, 2.0])
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    Balancer(method).backward(make_step(parameter, normal(3, 6), [4.0, 5.0, 6.0]))
    assert method.initial_losses.tolist() == pytest.approx([math.log(10), 1.0, 2.0])


CASES = {
    "zero rows": (torch.zeros(3, 6), [1.0, 2.0, 3.0]),
    "one zero row": (torch.eye(3, 6) * torch.tensor([[1.0], [0.0], [2.0]]), [1.0, 2.0, 3.0]),
    "zero losses": (normal(3, 6), [0.0, 0.0, 0.0]),
    "one zero loss": (normal(3, 6), [1.0, 0.0, 1.0]),
    "tiny": (normal(3, 6) * 1e-20, [1e-20, 1e-20, 2e-20]),
    "huge": (normal(3, 6) * 1e20, [1e20, 1e20, 2e20]),
    "opposite": (torch.ones(3, 6) * torch.tensor([[1.0], [-1.0], [1.0]]), [1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("like", ["paper", "libmtl"])
@pytest.mark.parametrize("case", CASES)
def test_degenerate_inputs_never_give_nan(case, like):
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    method = GradNorm(3, lr=2.0, like=like)
    balancer = Balancer(method)
    balancer.on_epoch_start(1)
    rows, offsets = CASES[case]
    for _ in range(5):
        report = balancer.backward(make_step(parameter, rows.double(), offsets))
        assert not report.nonfinite
        assert bool((report.weights > 0).all())
        assert bool(report.weights.isfinite().all())
        assert float(method.weights.sum()) == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": -1.0},
        {"lr": 0.0},
        {"like": "torchjd"},
        {"initial_losses": [1.0]},
        {"initial_losses": [1.0, 0.0]},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="should be"):
        GradNorm(2, **options)


def test_negative_losses():
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    with pytest.raises(ConfigError, match="GradNorm needs losses of at least"):
        Balancer(GradNorm(3)).backward(make_step(parameter, normal(3, 6), [1.0, -1.0, 1.0]))
