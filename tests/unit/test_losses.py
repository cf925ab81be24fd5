"""Losses: masked means against slow references, gradients, counts and messages."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mtl.errors import ConfigError, TaskError
from mtl.losses import (
    L1,
    MSE,
    BinaryCrossEntropy,
    Cosine,
    CrossEntropy,
    check_same_shape,
    has_direction,
)

NAN = float("nan")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(seed=1):
    target = F.normalize(normal(2, 3, 4, 5, seed=seed), dim=1)
    target[0, :, 1] = 0.0
    target[1, 1, 2, 2] = NAN
    return target


def holed(value, seed=1):
    target = normal(2, 1, 4, 5, seed=seed).abs()
    target[0, 0, 1] = value
    target[1, 0, 2, 3] = NAN
    return target


def class_ids(seed=1):
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(seed))
    target[0, 1] = -1
    target[1, 2, 2] = -100
    return target


def dense_cases():
    """Loss, prediction, target with holes, and the number of labelled elements."""
    bits = torch.where(holed(0.0) > 0.7, 1.0, 0.0).masked_fill(holed(0.0).isnan(), NAN)
    return {
        "cross_entropy": (CrossEntropy(), normal(2, 3, 4, 5), class_ids(), 34),
        "smoothed": (CrossEntropy(0.1), normal(2, 3, 4, 5), class_ids(), 34),
        "l1": (L1(invalid=0.0), normal(2, 1, 4, 5), holed(0.0), 34),
        "mse": (MSE(invalid=-5.0), normal(2, 1, 4, 5), holed(-5.0), 34),
        "bce": (BinaryCrossEntropy(), normal(2, 1, 4, 5), bits, 39),
        "cosine": (Cosine(), normal(2, 3, 4, 5), vectors(), 34),
    }


CASES = dense_cases()
dense = pytest.mark.parametrize("name", CASES)


def log_softmax(row):
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def slow(name, prediction, target):
    """Loop over the elements and average what is labelled; float64 numpy."""
    p, t = prediction.double().numpy(), target.numpy()
    values = []
    for b in range(p.shape[0]):
        for i in range(p.shape[2]):
            for j in range(p.shape[3]):
                q, g = p[b, :, i, j], t[b, ..., i, j]
                if name in ("cross_entropy", "smoothed"):
                    if g >= 0:
                        logs, s = log_softmax(q), 0.1 if name == "smoothed" else 0.0
                        values.append(-(1 - s) * logs[g] - s * logs.mean())
                elif name == "cosine":
                    if np.isfinite(g).all() and g.any():
                        values.append(1 - (q / np.linalg.norm(q)) @ g)
                elif not np.isnan(g[0]) and g[0] != {"l1": 0.0, "mse": -5.0}.get(name):
                    x, y = float(q[0]), float(g[0])
                    sigmoid = 1 / (1 + math.exp(-x))
                    values.append(
                        {
                            "l1": abs(x - y),
                            "mse": (x - y) ** 2,
                            "bce": -y * math.log(sigmoid) - (1 - y) * math.log(1 - sigmoid),
                        }[name]
                    )
    return float(np.mean(values))


@dense
def test_masked_mean_is_the_slow_mean(name):
    loss, prediction, target, count = CASES[name]
    assert loss(prediction, target).item() == pytest.approx(slow(name, prediction, target), 1e-5)
    assert loss.count(target).item() == count
    assert loss.count(target).dtype == torch.int64


@dense
def test_holes_cause_no_nan_and_no_gradient(name):
    loss, prediction, target, _ = CASES[name]
    prediction = prediction.clone().requires_grad_()
    loss(prediction, target).backward()
    assert prediction.grad.isfinite().all()
    valid = loss.valid(target)
    known = valid if valid.dim() == prediction.dim() else valid.unsqueeze(1)
    assert (prediction.grad[~known.expand_as(prediction)] == 0).all()
    assert prediction.grad.abs().sum() > 0


@dense
def test_gradient_is_the_derivative(name):
    loss, prediction, target, _ = CASES[name]
    target = target.double() if target.is_floating_point() else target
    prediction = prediction.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, target), prediction)


@dense
@pytest.mark.parametrize("samples", [0, 2])
def test_nothing_labelled_is_an_attached_zero(name, samples):
    loss, prediction, target, _ = CASES[name]
    prediction = prediction[:samples].clone().requires_grad_()
    target = target[:samples]
    target = torch.full_like(target, NAN if target.is_floating_point() else -1)
    value = loss(prediction, target)
    assert value.item() == 0
    assert loss.count(target).item() == 0
    value.backward()
    assert (prediction.grad == 0).all()


@dense
def test_parts_combine_exactly_by_count(name):
    loss, prediction, target, _ = CASES[name]
    parts = [(loss(prediction[i : i + 1], target[i : i + 1]), target[i : i + 1]) for i in (0, 1)]
    counts = [loss.count(part) for _, part in parts]
    total = sum(n * value for n, (value, _) in zip(counts, parts, strict=True)) / sum(counts)
    assert total.item() == pytest.approx(loss(prediction, target).item(), rel=1e-5)


@dense
def test_no_value_is_read_back_from_the_device(name):
    loss, prediction, target, _ = CASES[name]
    prediction, target = prediction.to("meta"), target.to("meta")  # reading a value raises
    assert loss(prediction, target).shape == loss.count(target).shape == ()


@dense
def test_half_precision_does_not_overflow(name):
    loss, prediction, target, _ = CASES[name]
    many = 4000  # 4000 x 34 elements: a float16 sum or count would be infinite
    value = loss(
        prediction.half().repeat(many, 1, 1, 1), target.repeat(many, *[1] * (target.dim() - 1))
    )
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(prediction, target).item(), rel=1e-2)


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([-3.0, 0.0, 0.5, 2.0, NAN]), min_size=1, max_size=8))
def test_l1_and_mse_of_any_mask(target):
    target = torch.tensor(target)
    prediction = torch.linspace(-1, 1, len(target))
    keep = ~target.isnan() & (target != 0.0)
    error = prediction[keep] - target[keep]
    for loss, values in ((L1(invalid=0.0), error.abs()), (MSE(invalid=0.0), error**2)):
        expected = values.mean().item() if len(values) else 0.0
        assert loss(prediction, target).item() == pytest.approx(expected, abs=1e-6)
        assert loss.count(target).item() == len(values)


def test_without_holes_the_losses_are_torchs():
    logits, ids = normal(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(CrossEntropy()(logits, ids), F.cross_entropy(logits, ids))
    torch.testing.assert_close(CrossEntropy()(logits, ids.int()), F.cross_entropy(logits, ids))
    x, y = normal(6, 3), normal(6, 3, seed=1)
    torch.testing.assert_close(L1()(x, y), F.l1_loss(x, y))
    torch.testing.assert_close(MSE()(x, y.double()), F.mse_loss(x, y))
    bits = (y > 0).float()
    expected = F.binary_cross_entropy_with_logits(x, bits)
    torch.testing.assert_close(BinaryCrossEntropy()(x, bits), expected)
    torch.testing.assert_close(BinaryCrossEntropy()(x, bits.bool()), expected)


def test_binary_integer_targets_below_zero_are_unlabelled():
    loss, target = BinaryCrossEntropy(), torch.tensor([1, 0, -1])
    prediction = normal(3)
    torch.testing.assert_close(loss(prediction, target), loss(prediction[:2], target[:2].float()))
    assert loss.count(target).item() == 2
    assert BinaryCrossEntropy(invalid=-1.0).count(target.float()).item() == 2


def test_cosine_ignores_the_length_of_the_prediction_and_survives_zero():
    prediction, target = normal(2, 3, 4, 5), vectors()
    torch.testing.assert_close(Cosine()(7 * prediction, target), Cosine()(prediction, target))
    zero = torch.zeros(2, 3, 4, 5, requires_grad=True)
    value = Cosine()(zero, target)
    value.backward()
    assert value.item() == pytest.approx(1.0)
    assert zero.grad.isfinite().all()


def test_has_direction_keeps_a_vector_whose_components_cancel():
    target = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [NAN, 1.0, 0.0]])
    assert has_direction(target).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L1()(normal(2, 1, 3), normal(2, 3)), r"L1: .*same shape.*\[2, 1, 3\].*\[2, 3\]"),
        (lambda: Cosine()(normal(2, 2), normal(2, 3)), "Cosine: .*same shape"),
        (lambda: CrossEntropy()(normal(2, 3), normal(2, 3)), "CrossEntropy: .*integer class ids"),
        (
            lambda: CrossEntropy()(normal(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.long)),
            r"class ids of shape \[2, 4, 4\]",
        ),
        (lambda: check_same_shape("x", normal(1), normal(2)), "x: expected"),
    ],
)
def test_misfits_are_refused(call, message):
    with pytest.raises(TaskError, match=message):
        call()


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"label_smoothing: expected .* got 1.5"):
        CrossEntropy(1.5)
