"""Float32 gradients whose squares leave float32's range are finite, and count as they should."""

import pytest
import torch
from torch import nn

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import MGDAWeighting
from mtl.linalg import gramian, inner_products, lengths
from mtl.sharpness import JointSAM, TaskSAM

WAYS = {
    "rows": {"engine": "rows"},
    "factors": {"engine": "gramian"},
    "few rows": {"max_rows": 1},
    "representation": {"level": "representation", "engine": "rows"},
    "linear heads": {"level": "representation", "engine": "gramian"},
}


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, prediction, target):
        return (prediction - target).square().mean() * self.factor


def direction(factor, dtype, options, steps=1):
    """Gradient of the shared parameters, that of several steps together, without the factor."""
    torch.manual_seed(0)
    tasks = [Task(f"t{i}", nn.Linear(64, 2), Scaled(factor)) for i in range(3)]
    backbone = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh())
    model = MultiTaskModel(backbone, tasks)
    inputs = torch.randn(48, 40)
    batch = (inputs, {task.name: torch.randn(48, 2) for task in tasks})
    model, batch = (
        model.to(dtype),
        (inputs.to(dtype), {k: v.to(dtype) for k, v in batch[1].items()}),
    )
    balancer = Balancer(MGDAWeighting(), **options)
    for _ in range(steps):
        report = balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
        assert not report.nonfinite
    return torch.cat([p.grad.double().flatten() for p in model.backbone.parameters()]) / factor


@pytest.fixture(autouse=True)
def _small_layers_too(monkeypatch):
    monkeypatch.setattr("mtl.factors._LEAST", 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("factor", [1e-22, 1e-20, 1e-12, 1.0, 1e18, 1e20])
def test_directions_do_not_depend_on_the_scale(way, factor):
    level = WAYS[way].get("level", "parameters")
    expected = direction(1.0, torch.float64, {"level": level, "engine": "rows"})
    found = direction(factor, torch.float32, WAYS[way])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("sharpness", [TaskSAM, JointSAM])
@pytest.mark.parametrize("factor", [1e-22, 1e-12, 1.0, 1e18, 1e22])
def test_perturbations_do_not_depend_on_the_scale(sharpness, factor):
    options = {"rho_shared": 0.5, "every": 2} if sharpness is TaskSAM else {"rho": 0.5}
    expected = direction(1.0, torch.float64, {"sharpness": sharpness(**options)}, steps=2)
    found = direction(factor, torch.float32, {"sharpness": sharpness(**options)}, steps=2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("scale", [2.0**-83, 2.0**-50, 1.0, 2.0**83])
def test_lengths(scale):
    vectors = [[torch.tensor([[3.0, 0.0], [0.0, 4.0]]) * scale, torch.tensor([12.0]) * scale]]
    found = lengths([*vectors, [], [torch.zeros(4)]], torch.zeros(()))
    assert found.dtype == torch.float64
    assert found.tolist() == [13.0 * scale, 0.0, 0.0]


@pytest.mark.parametrize("columns", [7, 2048, 5000])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e25])
def test_precise_products(columns, scale):
    left, right = (torch.randn(m, columns).mul_(scale) for m in (3, 4))
    expected = left.double() @ right.double().T
    torch.testing.assert_close(inner_products(left, right, precise=True), expected)
    expected = left.double() @ left.double().T
    torch.testing.assert_close(gramian(left, precise=True), expected)


def test_a_zero_row_stays_zero():
    model = MultiTaskModel(nn.Linear(3, 4), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    tasks = [Task(name, head, nn.MSELoss()) for name, head in model.heads.items()]
    nn.init.zeros_(model.heads["a"].weight)
    batch = torch.randn(5, 3), {"a": torch.randn(5, 1), "b": torch.randn(5, 1)}
    products = Step.evaluate(model, tasks, batch).products().gramian
    assert products[0].abs().max() == 0
    assert products[1, 1] > 0
