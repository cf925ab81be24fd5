"""SampleLoss and labelled: which samples count, what the wrapped function sees, messages."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mtl.errors import ConfigError, TaskError
from mtl.losses import SampleLoss, labelled

NAN = float("nan")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (torch.tensor([1.0, NAN, -1.0]), [True, False, True]),
        (torch.tensor([[1.0, NAN], [NAN, NAN]]), [True, False]),
        (torch.tensor([0, -1, 5]), [True, False, True]),
        (torch.tensor([[[-1, 0]], [[-1, -2]]]), [True, False]),
        (torch.tensor([True, False]), [True, True]),
        (torch.zeros(0, 3), []),
    ],
)
def test_labelled(target, expected):
    assert labelled(target).tolist() == expected


def test_labelled_refuses_a_scalar():
    with pytest.raises(TaskError, match="target: expected a batch"):
        labelled(torch.tensor(1.0))


class Spy(nn.Module):
    def forward(self, prediction, target):
        self.seen = (prediction, target)
        return (prediction - target).square().mean()


def test_sample_loss_hands_over_the_very_tensors():
    spy, prediction, target = Spy(), normal(4, 2), normal(4, 2, seed=1)
    SampleLoss(spy)(prediction, target)
    assert spy.seen[0] is prediction
    assert spy.seen[1] is target


def test_sample_loss_takes_out_unlabelled_samples():
    prediction = normal(4, 3).requires_grad_()
    target = torch.tensor([0, -1, 2, -100])
    loss = SampleLoss(nn.CrossEntropyLoss())
    value = loss(prediction, target)
    torch.testing.assert_close(value, F.cross_entropy(prediction[[0, 2]], target[[0, 2]]))
    assert loss.count(target).item() == 2
    value.backward()
    assert (prediction.grad[[1, 3]] == 0).all()


@pytest.mark.parametrize("samples", [0, 2])
def test_sample_loss_with_nothing_labelled_is_an_attached_zero(samples):
    prediction = torch.full((samples, 3), float("inf"), requires_grad=True)
    value = SampleLoss(F.mse_loss)(prediction, torch.full((samples, 3), NAN))
    assert value.item() == 0
    value.backward()
    assert (prediction.grad == 0).all()


def test_sample_loss_registers_modules():
    loss = SampleLoss(nn.CrossEntropyLoss(weight=torch.ones(3)))
    assert [name for name, _ in loss.named_buffers()] == ["function.weight"]


def test_misfits_are_refused():
    with pytest.raises(TaskError, match=r"SampleLoss: expected .* same number of samples"):
        SampleLoss(F.l1_loss)(normal(3, 1), normal(2, 1))
    with pytest.raises(TaskError, match="SampleLoss: expected a scalar mean"):
        SampleLoss(torch.sub)(normal(2), normal(2))
    with pytest.raises(ConfigError, match="reduction='mean', got 'sum'"):
        SampleLoss(nn.MSELoss(reduction="sum"))


@pytest.mark.parametrize("target", [torch.tensor([1.0, NAN, 2.0]), torch.tensor([NAN, NAN, 3.0])])
def test_parts_combine_exactly_by_count(target):
    loss, prediction = SampleLoss(nn.MSELoss()), normal(3)
    parts = [(prediction[:2], target[:2]), (prediction[2:], target[2:])]
    total = sum(loss.count(t) * loss(p, t) for p, t in parts) / loss.count(target)
    torch.testing.assert_close(total, loss(prediction, target))
