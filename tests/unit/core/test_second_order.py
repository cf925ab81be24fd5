"""Second derivatives of convolutions, batch normalization and ReLU, against PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from mtl.second_order import InputGradients, twice_differentiable
from tests.unit.core.toy import normal

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "pointwise": lambda: nn.Conv2d(4, 6, 1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "norm": lambda: nn.BatchNorm2d(4),
    "norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "relu": lambda: nn.ReLU(),
    "relu in place": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)),
    # These stay as they are.
    "same": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "reflected": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "norm without weight": lambda: nn.BatchNorm2d(4, affine=False),
    "norm in evaluation": lambda: nn.BatchNorm2d(4).eval(),
    "cumulative norm": lambda: nn.BatchNorm2d(4, momentum=None),
}


def net(kind, *, frozen=False):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    width = 6 if isinstance(layer, nn.Conv2d) else 4
    result = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Tanh(), layer, nn.Softplus(), nn.Conv2d(width, 2, 1)
    ).double()
    if isinstance(layer, nn.BatchNorm2d) and layer.affine:
        nn.init.uniform_(layer.weight, 0.5, 2)
    layer.requires_grad_(not frozen)
    return result


def derivatives(model, *, fast, channels_last=False):
    """Loss, its gradient at the inputs, and the derivatives of a function of both."""
    inputs = normal(3, 4, 9, 8).requires_grad_()
    z = inputs * 1
    if channels_last:
        z = z.to(memory_format=torch.channels_last)
    with twice_differentiable(model, model.parameters() if fast else []) as switch:
        loss = model(z).square().mean().log()
    with switch():
        (saliency,) = torch.autograd.grad(loss, z, create_graph=True)
    term = (saliency * normal(*saliency.shape, seed=5)).sum() + 1e3 * saliency.pow(3).sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad([loss, term], [inputs, *trained], allow_unused=True)
    return [loss, saliency, *(g for g in found if g is not None)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_second_derivatives(kind, frozen, channels_last):
    model = net(kind, frozen=frozen)
    twin = copy.deepcopy(model)
    found = derivatives(model, fast=True, channels_last=channels_last)
    expected = derivatives(twin, fast=False, channels_last=channels_last)
    assert len(found) == len(expected)
    assert torch.equal(found[0], expected[0])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name
    assert not any("forward" in vars(m) for m in model.modules())


def test_layers_are_evaluated_as_promised():
    """The nodes of the graph: ours for the chosen parameters, PyTorch's for others."""
    head = net("norm")[2:]
    head[1] = nn.ReLU()
    backbone = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()).double()
    model = nn.Sequential(backbone, head)
    with twice_differentiable(model, head.parameters()):
        loss = model(normal(3, 4, 9, 8)).sum()
    names, stack = [], [loss.grad_fn]
    while stack:
        node = stack.pop()
        names.append(type(node).__name__)
        stack += [child for child, _ in node.next_functions if child is not None]
    assert names.count("_ConvolutionBackward") == 1
    assert names.count("_BatchNormBackward") == 1
    assert names.count("ConvolutionBackward0") == 1
    assert names.count("_ReLUBackward") == 1
    assert names.count("ReluBackward0") == 1


def test_without_the_switch_parameters_get_their_gradient_with_a_graph():
    """A gradient penalty on parameters, by PyTorch's formulas."""
    results = []
    for fast in (True, False):
        model = net("norm")
        with twice_differentiable(model, model.parameters() if fast else []):
            loss = model(normal(3, 4, 9, 8)).square().mean()
        parameters = [*model.parameters()]
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        results.append(torch.autograd.grad(penalty, parameters))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_layers_come_back_after_an_error():
    model = net("plain")
    with pytest.raises(RuntimeError, match="stop"), twice_differentiable(model, model.parameters()):
        raise RuntimeError("stop")
    assert not any("forward" in vars(m) for m in model.modules())
    switch = InputGradients()
    with pytest.raises(RuntimeError, match="stop"), switch():
        raise RuntimeError("stop")
    assert not switch.alone
