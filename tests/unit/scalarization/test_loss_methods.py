"""Scalarizers against naive formulas, recurrences, and TorchJD's where it follows the paper."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl import Balancer, Step
from mtl.errors import ConfigError
from mtl.scalarization import FAMO, STCH, ConstantWeights, GeometricMean, IMTLLoss
from mtl.scalarization.adam import TaskAdam

NAMES = ("a", "b", "c")
positive = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def tensor(values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


def value_and_weights(method, losses):
    losses = tensor(losses, requires_grad=True)
    value = method(losses)
    (weights,) = torch.autograd.grad(value, losses)
    return value.item(), weights.tolist()


def torchjd():
    return pytest.importorskip("torchjd.scalarization")


def same(method, reference, losses):
    """Value and weights to 1e-9: both work in float64 and differ in the order of sums."""
    found, expected = value_and_weights(method, losses), value_and_weights(reference, losses)
    assert found[0] == pytest.approx(expected[0], rel=1e-9, abs=1e-12)
    assert found[1] == pytest.approx(expected[1], rel=1e-9, abs=1e-12)


# -------------------------------------------------------------------------------------- constant


def test_constant_weights():
    assert value_and_weights(ConstantWeights(3, weights=[1, 0, 0.5]), [2, 3, 4]) == (
        4.0,
        [1.0, 0.0, 0.5],
    )
    assert value_and_weights(ConstantWeights(3), [2, 3, 4]) == (9.0, [1.0] * 3)


def test_constant_weights_of_present_tasks():
    p = torch.nn.Parameter(torch.ones(2))
    balancer = Balancer(ConstantWeights(3, weights=[1, 2, 3]))
    report = balancer.backward(Step({"a": p.sum(), "b": None, "c": p.sum()}, shared=[p]))
    assert report.weights.tolist() == [1.0, 3.0]


@quick
@given(losses=positive)
def test_constant_agrees_with_torchjd(losses):
    weights = [0.1 * i for i in range(len(losses))]
    method = ConstantWeights(len(losses), weights=weights).double()
    same(method, torchjd().Constant(method.weights), losses)


# ---------------------------------------------------------------------------------- geometric mean


@quick
@given(losses=positive)
def test_geometric_mean(losses):
    value, weights = value_and_weights(GeometricMean(), losses)
    expected = math.exp(sum(map(math.log, losses)) / len(losses))
    assert value == pytest.approx(expected)
    assert weights == pytest.approx([expected / (len(losses) * loss) for loss in losses])
    same(GeometricMean(), torchjd().GeometricMean(), losses)


def test_geometric_mean_of_many_losses_stays_in_range():
    losses = torch.full((40,), 1e-3, requires_grad=True)
    assert losses.prod().item() == 0.0
    assert GeometricMean()(losses).item() == pytest.approx(1e-3)


def test_geometric_mean_of_a_negative_loss():
    with pytest.raises(ConfigError, match=r"at least 0\.0\. Got .*-1"):
        GeometricMean()(torch.tensor([1.0, -1.0]))


# -------------------------------------------------------------------------------------------- imtl


def test_imtl_l_learns_the_inverse_of_the_losses():
    method = IMTLLoss(3).double()
    losses = tensor([0.01, 1.0, 50.0])
    assert value_and_weights(method, losses.tolist())[1] == [1.0] * 3
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        method(losses).backward()
        optimizer.step()
    assert (method.log_scale.exp() * losses).tolist() == pytest.approx([1.0] * 3, rel=1e-2)


@quick
@given(losses=positive, start=st.floats(-2, 2))
def test_imtl_l_agrees_with_torchjd(losses, start):
    method = IMTLLoss(len(losses), initial=start).double()
    reference = torchjd().IMTLL(len(losses)).double()
    with torch.no_grad():
        reference.log_scale.fill_(method.log_scale[0])
    same(method, reference, losses)
    slopes = [
        torch.autograd.grad(part(tensor(losses)), part.log_scale)[0] for part in (method, reference)
    ]
    torch.testing.assert_close(*slopes)


# -------------------------------------------------------------------------------------------- adam


def test_adam_is_torchs():
    values = torch.linspace(-1, 1, 5)
    parameter = torch.nn.Parameter(values.clone())
    own = TaskAdam(5, lr=0.02, weight_decay=0.01)
    reference = torch.optim.Adam([parameter], lr=0.02, weight_decay=0.01)
    for i in range(30):
        gradient = torch.randn(5, generator=torch.Generator().manual_seed(i))
        own.update(values, gradient, slice(None))
        parameter.grad = gradient
        reference.step()
    torch.testing.assert_close(values, parameter.detach())


def test_adam_of_absent_tasks_stands_still():
    """Every entry moves as if it were alone."""
    present = [[0, 1], [1, 2], [0, 1, 2], [0, 2], [2]]
    values, own = torch.zeros(3), TaskAdam(3, lr=0.1)
    alone = [torch.zeros(1) for _ in range(3)]
    others = [TaskAdam(1, lr=0.1) for _ in range(3)]
    for index in present:
        gradient = torch.tensor([1.0, -2.0, 0.5])[index]
        own.update(values, gradient, torch.tensor(index))
        for k, g in zip(index, gradient, strict=True):
            others[k].update(alone[k], g[None], slice(None))
    torch.testing.assert_close(values, torch.cat(alone))


# -------------------------------------------------------------------------------------------- famo


def famo_step(before, after):
    """A step whose losses change from one list to the other (`None`: absent)."""
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    now = Step({n: p.sum() * a for n, a in zip(NAMES, after, strict=True) if a is not None},
               shared=[p])  # fmt: skip
    losses = {n: None if b is None else p.sum() * b for n, b in zip(NAMES, before, strict=True)}
    return Step(losses, shared=[p], recompute=lambda: now)


def naive_famo(history, lr, decay, bounds):
    """Weights at every step, by autograd through the softmax and torch's Adam."""
    logits = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.Adam([logits], lr=lr, weight_decay=decay)
    for before, after in history:
        first, second = (tensor(x) - tensor(bounds) + 1e-8 for x in (before, after))
        z = logits.softmax(0)
        yield ((z / first) / (z / first).sum()).detach()
        optimizer.zero_grad()
        z.backward(first.log() - second.log())
        optimizer.step()


def histories(count):
    generator = torch.Generator().manual_seed(4)
    draw = torch.rand(count, 2, 3, generator=generator, dtype=torch.float64)
    return (0.5 + draw * tensor([1.0, 30.0, 0.2])).tolist()


@pytest.mark.parametrize("bounds", [None, [0.1, 0.4, 0.3]])
def test_famo_over_steps(bounds):
    method = FAMO(3, lr=0.3, weight_decay=0.01, min_losses=bounds).double()
    balancer = Balancer(method)
    history = histories(12)
    expected = naive_famo(history, 0.3, 0.01, bounds or [0.0] * 3)
    for (before, after), weights in zip(history, expected, strict=True):
        step = famo_step(before, after)
        report = balancer.backward(step)
        balancer.after_step(step)
        # The buffers of bounds are float32 numbers.
        torch.testing.assert_close(report.weights, weights, rtol=1e-6, atol=1e-9)
    assert float(report.weights.std()) > 0.01


def test_famo_agrees_with_torchjd():
    method, reference = FAMO(3).double(), torchjd().FAMO(3).double()
    for before, after in histories(8):
        same(method, reference, before)
        step = famo_step(before, after)
        method.after_step(step)
        reference.update(tensor(after))
    torch.testing.assert_close(method.logits, reference._w.detach())


def test_famo_of_absent_tasks():
    method = FAMO(3, lr=0.5).double()
    balancer = Balancer(method)
    for before, after in ([2.0, None, 4.0], [1.0, None, 1.0]), ([None, 3.0, 4.0], [None, 2.0, 4.0]):
        kept = method.logits.clone()
        step = famo_step(before, after)
        report = balancer.backward(step)
        assert len(report.weights) == 2
        assert float(report.weights.sum()) == pytest.approx(1.0)
        balancer.after_step(step)
        moved = (method.logits != kept).tolist()
        assert moved == [loss is not None for loss in before]


def test_famo_continues_from_its_state():
    old = FAMO(3).double()
    for before, after in histories(4):
        old.after_step(famo_step(before, after))
    fresh = FAMO(3).double()
    fresh.load_state_dict(copy.deepcopy(old.state_dict()))
    for method in (old, fresh):
        method.after_step(famo_step([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))
    assert torch.equal(old.logits, fresh.logits)


@pytest.mark.parametrize("after", [float("nan"), float("inf"), -1.0])
def test_famo_ignores_a_step_that_broke_the_losses(after):
    method = FAMO(3)
    method.after_step(famo_step([1.0, 1.0, 1.0], [1.0, 1.0, after]))
    assert method.logits.tolist() == [0.0] * 3
    assert method.adam.steps.tolist() == [0.0] * 3


def test_famo_below_its_bound():
    with pytest.raises(ConfigError, match="`min_losses` needs losses of at least"):
        FAMO(2, min_losses=[0.5, 0.5])(torch.tensor([1.0, 0.4]))


# -------------------------------------------------------------------------------------------- stch


@quick
@given(losses=positive, mu=st.sampled_from([0.01, 0.5, 1.0]), preferred=st.booleans())
def test_stch_agrees_with_torchjd(losses, mu, preferred):
    count = len(losses)
    weights = [(i + 1) / 8 for i in range(count)] if preferred else None
    ideal = [0.5] * count if preferred else None
    method = STCH(count, mu=mu, weights=weights, ideal=ideal).double()
    if weights is None:  # the default is a float32 number
        method.weights.fill_(1 / count)
    options = (tensor(weights), tensor(ideal)) if preferred else ()
    same(method, torchjd().STCH(mu, *options), losses)


def naive_log_stch(losses, nadir, mu):
    values = [math.log(loss / n) for loss, n in zip(losses, nadir, strict=True)]
    return len(losses) * mu * math.log(sum(math.exp(v / mu) for v in values))


def test_stch_with_a_known_nadir():
    method = STCH(3, mu=0.5, like="libmtl", nadir=[1.0, 2.0, 4.0]).double()
    value, weights = value_and_weights(method, [3.0, 1.0, 2.0])
    assert value == pytest.approx(naive_log_stch([3.0, 1.0, 2.0], [1.0, 2.0, 4.0], 0.5))
    shares = [(loss / n) ** 2 for loss, n in zip([3.0, 1.0, 2.0], [1.0, 2.0, 4.0], strict=True)]
    expected = [3 * s / sum(shares) / v for s, v in zip(shares, [3.0, 1.0, 2.0], strict=True)]
    assert weights == pytest.approx(expected)


def test_stch_warms_up_by_epochs():
    method = STCH(2, like="libmtl", warmup_epochs=1).double()
    epochs = [[[9.0, 9.0]], [[2.0, 1.0], [4.0, 3.0]], [[3.0, 1.0], [5.0, 8.0]]]
    for number, epoch in enumerate(epochs):
        method.on_epoch_start(number)
        for losses in epoch:
            value, _ = value_and_weights(method, losses)
            logs = sum(map(math.log, losses))
            # The nadir is the mean over epoch 1 alone.
            assert value == pytest.approx(logs if number < 2 else naive_log_stch(losses, [3, 2], 1))


def test_stch_warms_up_by_steps():
    method = STCH(2, like="libmtl", warmup_steps=2).double()
    history = [[2.0, 1.0], [4.0, 3.0], [3.0, 1.0], [5.0, 8.0]]
    for number, losses in enumerate(history):
        value, _ = value_and_weights(method, losses)
        logs = sum(map(math.log, losses))
        assert value == pytest.approx(logs if number < 2 else naive_log_stch(losses, [3, 2], 1))


def test_stch_of_a_task_that_comes_late():
    method = STCH(3, like="libmtl", warmup_steps=1).double()
    method.present = torch.tensor([0, 2])
    method(tensor([2.0, 6.0]))
    method.present = slice(None)
    value, _ = value_and_weights(method, [1.0, 7.0, 3.0])
    assert value == pytest.approx(naive_log_stch([1.0, 7.0, 3.0], [2, 7, 6], 1))
    value, _ = value_and_weights(method, [1.0, 1.0, 3.0])
    assert value == pytest.approx(naive_log_stch([1.0, 1.0, 3.0], [2, 7, 6], 1))


# ---------------------------------------------------------------------------------- what all share

METHODS = {
    "constant": ConstantWeights,
    "gls": lambda m: GeometricMean(),
    "imtl_l": IMTLLoss,
    "famo": FAMO,
    "stch": lambda m: STCH(m, mu=0.01),
    "stch of libmtl": lambda m: STCH(m, like="libmtl", warmup_steps=1),
    "stch with nadir": lambda m: STCH(m, like="libmtl", nadir=[1.0] * m),
}
DEGENERATE = {
    "zeros": [0.0] * 3,
    "one zero": [1.0, 0.0, 2.0],
    "one task": [1.0],
    "identical": [1.0] * 3,
    "spread": [1e-10, 1.0, 1e10],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", METHODS)
def test_degenerate_losses_never_give_nan(name, case, scale, dtype):
    losses = (tensor(DEGENERATE[case]) * scale).to(dtype).requires_grad_()
    method = METHODS[name](len(losses))
    for _ in range(3):
        value = method(losses)
        (weights,) = torch.autograd.grad(value, losses)
        assert value.isfinite()
        assert weights.isfinite().all()
        assert value.dtype == dtype
        assert all(state.isfinite().all() for state in method.state_dict().values())


@pytest.mark.parametrize(
    "build",
    [
        lambda: ConstantWeights(3, weights=[1.0, 2.0]),
        lambda: ConstantWeights(2, weights=[1.0, -1.0]),
        lambda: ConstantWeights(2, weights=[1.0, float("nan")]),
        lambda: FAMO(2, lr=0.0),
        lambda: FAMO(2, weight_decay=-1.0),
        lambda: FAMO(2, min_losses=[0.0]),
        lambda: STCH(2, mu=0.0),
        lambda: STCH(2, like="torch"),
        lambda: STCH(2, weights=[1.0, 0.0]),
        lambda: STCH(2, ideal=[1.0]),
        lambda: STCH(2, like="libmtl", nadir=[0.0, 1.0]),
        lambda: STCH(2, like="libmtl", warmup_epochs=-1),
    ],
)
def test_options_out_of_range(build):
    with pytest.raises(ConfigError, match="should be"):
        build()


@pytest.mark.parametrize(
    "options",
    [
        {"warmup_epochs": 2},
        {"nadir": [1.0, 1.0]},
        {"like": "libmtl", "ideal": [0.0, 0.0]},
        {"like": "libmtl", "nadir": [1.0, 1.0], "warmup_steps": 3},
    ],
)
def test_stch_options_that_exclude_each_other(options):
    with pytest.raises(ConfigError, match=r"not used with|Give one of"):
        STCH(2, **options)
