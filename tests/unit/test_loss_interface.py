"""The loss interfaces as a base for losses of one's own."""

import pytest
import torch

from mtl.errors import TaskError
from mtl.losses import ElementwiseLoss, Loss


class RelativeL1(ElementwiseLoss):
    filler = 1.0

    def elementwise(self, prediction, target):
        return (prediction - target).abs() / target

    def valid(self, target):
        return target > 0


def test_a_loss_of_ones_own_chooses_a_harmless_filler():
    prediction = torch.zeros(2, requires_grad=True)
    value = RelativeL1()(prediction, torch.tensor([0.0, 2.0]))
    value.backward()
    assert value.item() == 1.0
    assert prediction.grad.tolist() == [0.0, -0.5]


class WrongMask(RelativeL1):
    def valid(self, target):
        return (target > 0).all(1)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(TaskError, match=r"WrongMask: expected elementwise and valid .*\[2, 3\]"):
        WrongMask()(torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("base", [Loss, ElementwiseLoss])
def test_bases_are_abstract(base):
    with pytest.raises(TypeError, match="abstract"):
        base()
