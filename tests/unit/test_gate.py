"""The outlier gate in networks: its gradients, its symmetry, and what it finds."""

import pytest
import torch
from torch import nn

from mtl import Balancer, MTLModule, MultiTaskModel, Step, Task
from mtl.aggregation import OutlierWeighting, PCGradWeighting
from mtl.errors import ConfigError
from mtl.model import optimizer_groups
from mtl.models import MLP, OutlierGate, SeparateNetworks, gates, outlier_scores, outliers
from mtl.scalarization import GroupDRO
from mtl.transforms import Relative


def gated(num_tasks=4, *, experts=2, seed=0, **options):
    torch.manual_seed(seed)
    gate = OutlierGate(experts=experts, **options)
    backbone = gate.backbone(lambda: MLP(5, [8, 3]))
    tasks = [Task(f"task{i}", gate.head(nn.Linear(3, 1)), nn.MSELoss()) for i in range(num_tasks)]
    return MultiTaskModel(backbone, tasks).double(), tasks


def batch(num_tasks=4, rows=16):
    torch.manual_seed(9)
    inputs = torch.randn(rows, 5, dtype=torch.float64)
    targets = {f"task{i}": torch.randn(rows, 1, dtype=torch.float64) for i in range(num_tasks)}
    return inputs, targets


def test_gradients_are_the_gated_residuals():
    model, tasks = gated()
    inputs, targets = batch()
    Balancer().backward(Step.evaluate(model, tasks, (inputs, targets)))

    first, second = (expert(inputs) for expert in model.backbone.experts)
    shares = [model.heads[t.name].gate.theta.detach().sigmoid() for t in tasks]
    pulls = []  # the gradient of each loss at the mixture
    for task, share in zip(tasks, shares, strict=True):
        mixture = ((1 - share) * first + share * second).detach().requires_grad_()
        loss = (model.heads[task.name].head(mixture) - targets[task.name]).pow(2).mean()
        pulls.append(torch.autograd.grad(loss, mixture)[0])
        slope = share * (1 - share) * (pulls[-1] * (second - first)).sum()
        torch.testing.assert_close(model.heads[task.name].gate.theta.grad, slope.detach())
    for output, factors, expert in (
        (first, [1 - s for s in shares], model.backbone.experts[0]),
        (second, shares, model.backbone.experts[1]),
    ):
        parameters = list(expert.parameters())
        pull = sum(f * p for f, p in zip(factors, pulls, strict=True))
        expected = torch.autograd.grad(output, parameters, pull, retain_graph=True)
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_exchanging_the_experts_and_the_signs_changes_nothing():
    model, _ = gated()
    inputs, _ = batch()
    before = model(inputs).predictions
    model.backbone.experts = nn.ModuleList(reversed(model.backbone.experts))
    for head in model.heads.values():
        head.gate.theta.data.neg_()
    for name, prediction in model(inputs).predictions.items():
        torch.testing.assert_close(prediction, before[name])


@pytest.mark.parametrize(("theta", "expert"), [(-1000.0, 0), (1000.0, 1)])
def test_a_closed_gate_is_a_single_expert(theta, expert):
    model, _ = gated()
    inputs, _ = batch()
    for head in model.heads.values():
        head.gate.theta.data.fill_(theta)
    for name, prediction in model(inputs).predictions.items():
        alone = model.heads[name].head(model.backbone.experts[expert](inputs))
        assert torch.equal(prediction, alone)


def test_gates_frozen_shut_train_as_the_plain_network_does():
    model, tasks = gated()
    for head in model.heads.values():
        head.gate.theta.data.fill_(-1000.0)
        head.gate.theta.requires_grad_(False)
    plain = MultiTaskModel(MLP(5, [8, 3]), {name: nn.Linear(3, 1) for name in model.heads}).double()
    plain.backbone.load_state_dict(model.backbone.experts[0].state_dict())
    for name, head in plain.heads.items():
        head.load_state_dict(model.heads[name].head.state_dict())
    for network in (model, plain):
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            Balancer(PCGradWeighting(seed=0)).backward(
                Step.evaluate(network, tasks, batch(), needs=Balancer(PCGradWeighting()).needs)
            )
            optimizer.step()
    for ours, theirs in zip(
        model.backbone.experts[0].parameters(), plain.backbone.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_gate_is_the_tasks_own():
    model, _ = gated()
    groups = model.parameter_groups()
    for name, head in model.heads.items():
        assert any(p is head.gate.theta for p in groups.specific[name])
    shared = {id(p) for p in groups.shared}
    assert shared == {id(p) for p in model.backbone.parameters()}


def test_gates_have_an_optimizer_group_of_their_own():
    model, tasks = gated(lr=0.07)
    optimizer = MTLModule(
        model, tasks, optimizer=lambda g: torch.optim.AdamW(g, lr=1e-3, weight_decay=0.1)
    ).configure_optimizers()
    network, own = optimizer.param_groups
    assert (own["lr"], own["weight_decay"]) == (0.07, 0.0)
    assert {id(p) for p in own["params"]} == {id(h.gate.theta) for h in model.heads.values()}
    assert (network["lr"], network["weight_decay"]) == (1e-3, 0.1)
    assert len(network["params"]) + len(own["params"]) == len(list(model.parameters()))


def test_a_frozen_group_is_left_out():
    model, _ = gated()
    for head in model.heads.values():
        head.gate.theta.requires_grad_(False)
    assert len(list(optimizer_groups(model))) == 1


def test_separate_networks_share_nothing():
    sharing = SeparateNetworks()
    backbone = sharing.backbone(lambda: MLP(5, [8, 3]))
    tasks = [Task(f"task{i}", sharing.head(nn.Linear(3, 1)), nn.MSELoss()) for i in range(4)]
    model = MultiTaskModel(backbone, tasks).double()
    assert backbone.out_channels == 3
    assert model.parameter_groups().shared == []
    assert len({id(p) for p in model.parameters()}) == 4 * 6
    Balancer().backward(Step.evaluate(model, tasks, batch()))
    for task in tasks:
        inputs, targets = batch()
        loss = (model.heads[task.name](inputs) - targets[task.name]).pow(2).mean()
        own = list(model.heads[task.name].parameters())
        for p, g in zip(own, torch.autograd.grad(loss, own), strict=True):
            torch.testing.assert_close(p.grad, g)


def test_heads_start_alike_where_their_shapes_agree():
    torch.manual_seed(0)
    gate = OutlierGate()
    first, second, other = (gate.head(nn.Linear(3, size)) for size in (2, 2, 5))
    assert torch.equal(first.head.weight, second.head.weight)
    assert other.head.weight.shape == (5, 3)
    free = OutlierGate(align=False)
    pair = [free.head(nn.Linear(3, 2)) for _ in range(2)]
    assert not torch.equal(pair[0].head.weight, pair[1].head.weight)


def test_three_experts_have_shares_that_sum_to_one():
    model, _ = gated(experts=3)
    for shares in gates(model.heads).values():
        assert shares.shape == (3,)
        torch.testing.assert_close(shares.sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([0.1, 0.1, 0.15, 0.9, 0.1], ("3",)),
        ([0.9, 0.9, 0.85, 0.1, 0.9], ("3",)),
        ([0.5, 0.5, 0.05, 0.95, 0.5], ("2", "3")),
        ([0.1, 0.9, 0.1, 0.9], ()),
        ([0.4, 0.5, 0.45], ()),
        ([], ()),
    ],
)
def test_outliers_are_found_on_either_side(shares, found):
    proportions = {str(i): torch.tensor([1 - s, s]) for i, s in enumerate(shares)}
    assert outliers(proportions) == found
    turned = {name: p.flip(0) for name, p in proportions.items()}
    assert outliers(turned) == found


def test_scores_are_distances_to_the_median():
    scores = outlier_scores(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]))
    torch.testing.assert_close(scores, torch.tensor([0.1, 0.0, 0.7]))


@pytest.mark.parametrize("options", [{"experts": 1}, {"lr": 0.0}, {"spread": -1.0}])
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        OutlierGate(**options)


# ------------------------------------------------------------------------- the light form, and DRO


def opposed(count=5):
    """Gradients that agree, but for the last, which opposes."""
    torch.manual_seed(3)
    rows = torch.ones(count, 40) + 0.5 * torch.randn(count, 40)
    rows[-1].neg_()
    return (rows @ rows.T).double()


def test_an_opposed_task_loses_its_weight():
    weighting = OutlierWeighting(5)
    for _ in range(60):
        weights = weighting(opposed())
    assert weights[-1] < 0.02
    assert weights[:-1].min() > 1.0
    torch.testing.assert_close(weights.sum(), torch.tensor(5.0, dtype=torch.float64))


def test_outlier_weights_follow_the_rule():
    weighting = OutlierWeighting(3, decay=0.5, rate=0.2, sharpness=4.0)
    weighting.theta.copy_(torch.tensor([0.1, -0.3, 0.2]))
    gram = torch.tensor([[4.0, 1.0, -2.0], [1.0, 1.0, 0.3], [-2.0, 0.3, 9.0]]).double()
    weights = weighting(gram)
    theta = [0.1, -0.3, 0.2]
    inside = [1 / (1 + torch.tensor(t).exp()) for t in theta]
    cosine = gram / (gram.diag()[:, None] * gram.diag()).sqrt()
    agreement = []
    for t in range(3):
        others = [u for u in range(3) if u != t]
        top = sum(inside[u] * cosine[t, u] for u in others)
        agreement.append(top / sum(inside[u] for u in others))
    middle = sorted(agreement)[1]
    moved = [
        0.8 * t + 0.2 * 4.0 * (middle / 2 - a) / max(middle, 0.05)
        for t, a in zip(theta, agreement, strict=True)
    ]
    expected = torch.stack([1 / (1 + m.exp()) for m in moved])
    expected = 3 * expected / expected.sum()
    torch.testing.assert_close(weights, expected.double(), rtol=1e-5, atol=1e-6)


def test_group_dro_follows_the_worst_task():
    method = GroupDRO(3, eta=0.5)
    losses = torch.tensor([1.0, 2.0, 0.5], requires_grad=True)
    for step in range(1, 4):
        (weights,) = torch.autograd.grad(method(losses), losses)
        torch.testing.assert_close(weights, (0.5 * step * losses.detach()).softmax(0))
    (weights,) = torch.autograd.grad(GroupDRO(3, hard=True)(losses), losses)
    assert weights.tolist() == [0.0, 1.0, 0.0]


def test_group_dro_stays_finite_for_large_losses():
    method = GroupDRO(2, eta=1.0)
    losses = torch.tensor([1e30, 1.0])
    for _ in range(3):
        assert method(losses).isfinite()


def test_relative_losses_start_at_one():
    transform = Relative(3)
    torch.testing.assert_close(transform(torch.tensor([4.0, 0.5, 0.0])), torch.tensor([1.0, 1, 0]))
    torch.testing.assert_close(transform(torch.tensor([2.0, 1.0, 3.0])), torch.tensor([0.5, 2, 3]))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: GroupDRO(2, eta=-1.0), "eta"),
        (lambda: OutlierWeighting(2, decay=1.0), "decay"),
        (lambda: OutlierWeighting(2, rate=0.0), "rate"),
        (lambda: OutlierWeighting(2, sharpness=0.0), "sharpness"),
    ],
)
def test_wrong_options_of_the_methods(make, name):
    with pytest.raises(ConfigError, match=name):
        make()
