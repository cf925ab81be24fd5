"""TaskSAM and JointSAM against numbers that were worked out by hand, to 1e-9 in float64."""

import copy

import pytest
import torch
from torch import nn

from mtl import Aggregator, Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import MGDAWeighting
from mtl.scalarization import ConstantWeights, EqualWeighting
from mtl.sharpness import JointSAM, TaskSAM

CURVATURES = torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=torch.float64)
CENTRES = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
PEACE, CONFLICT = (3.0, 1.0), (0.5, 1.5)


class PCGradOnce(Aggregator):
    """Two tasks, each projected off the other once: no draw of an order."""

    def forward(self, jacobian):
        first, second = jacobian
        product = (first @ second).clamp(max=0)
        return (
            first
            - product / (second @ second) * second
            + second
            - product / (first @ first) * first
        )


class Recording(Aggregator):
    """The sum; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, jacobian):
        self.seen.append(jacobian.clone())
        return jacobian.sum(0)


def quadratic(theta, curvatures=CURVATURES, centres=CENTRES, power=1.0):
    """A step of the losses `h (theta - c)^2 / 2`, without heads."""
    theta = torch.tensor(theta, dtype=torch.float64, requires_grad=True)

    def step():
        losses = 0.5 * (curvatures * (theta - centres) ** 2).sum(1) ** power
        return Step(
            {f"task{i}": loss for i, loss in enumerate(losses)}, shared=[theta], recompute=step
        )

    return theta, step


def direction(theta, combiner=None, step=None, **options):
    """The gradient that a balancer leaves, with radius 0.1."""
    point, make = quadratic(theta) if step is None else step
    sharpness = TaskSAM(**{"rho_shared": 0.1, **options})
    Balancer(combiner or EqualWeighting(), sharpness=sharpness).backward(make())
    return point.grad


def close(found, expected):
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9
    )


def flat_rows(theta, **options):
    combine = Recording()
    _, make = quadratic(theta)
    balancer = Balancer(combine, sharpness=TaskSAM(scale_match=False, rho_shared=0.1, **options))
    balancer.backward(make())
    (loss_rows,), (flat, *_) = combine.seen, balancer.sharpness.flat_combine.seen
    return loss_rows, flat


@pytest.mark.parametrize(
    ("theta", "loss", "flat"),
    [
        (PEACE, [[8, 1], [3, -9]], [[0.3969111507, 0.0124034735], [0.0316227766, -0.8538149682]]),
        (CONFLICT, [[-2, 1.5], [0.5, -4.5]], [[-0.32, 0.06], [0.0110431526, -0.8944953612]]),
    ],
)
def test_t1_flat_part_of_a_quadratic_is_radius_times_curvature_times_unit_gradient(
    theta, loss, flat
):
    found = flat_rows(theta)
    close(found[0], [list(map(float, row)) for row in loss])
    close(found[1], flat)


def test_t1_sum():
    close(direction(PEACE), [11.4285339273, -8.8414114948])


@pytest.mark.parametrize(
    ("combine", "mode", "expected"),
    [
        (PCGradOnce, "decomposed", [-4.2718329671, -3.7072763882]),
        (PCGradOnce, "direct", [-4.4916962165, -3.6821722196]),
        (MGDAWeighting, "decomposed", [-1.4386633655, -0.5807908368]),
        (MGDAWeighting, "direct", [-1.4454250282, -0.5884051130]),
    ],
)
def test_t1_the_two_modes_differ(combine, mode, expected):
    close(direction(CONFLICT, combine(), combine=mode), expected)


def test_second_and_each_are_combinations_of_two_vectors():
    g = torch.tensor([[-2, 1.5], [0.5, -4.5]], dtype=torch.float64)
    f = 0.1 * CURVATURES * g / g.norm(dim=1, keepdim=True)

    def shortest(*rows):
        matrix = torch.stack(rows)
        return MGDAWeighting()(matrix @ matrix.T) @ matrix

    second = shortest(shortest(*g), shortest(*f))
    each = shortest(*(shortest(*pair) for pair in zip(g, f, strict=True)))
    close(direction(CONFLICT, MGDAWeighting(), combine="second"), second.tolist())
    close(direction(CONFLICT, MGDAWeighting(), combine="each"), each.tolist())
    assert not torch.allclose(second, shortest(*g) + shortest(*f))


def test_t2_adaptive():
    _, flat = flat_rows(PEACE, adaptive=True)
    close(flat, [[1.1989596877, 0.0041630545], [0.2121320344, -0.6363961031]])


@pytest.mark.parametrize(
    ("options", "shared", "head"),
    [
        ({"norm": "separate"}, 1.441, 2.751),
        ({"norm": "joint"}, 1.3374072877, 2.5101138405),
        ({"norm": "separate", "adaptive": True}, 1.562, 3.124),
        ({"norm": "joint", "adaptive": True}, 1.3842604974, 2.7685209947),
    ],
)
@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
def test_t3_shared_and_head_parameters_move_together(options, shared, head, perturbation):
    point = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def step():
        loss = 0.5 * (point * weight - 1) ** 2
        return Step({"a": loss}, shared=[point], specific={"a": [weight]}, recompute=step)

    sharpness = TaskSAM(rho_shared=0.1, perturbation=perturbation, **options)
    Balancer(MGDAWeighting(), sharpness=sharpness).backward(step())
    close(point.grad, shared)
    close(weight.grad, head)


def test_t4_linear_losses_have_no_flat_part():
    slopes = torch.tensor([[1.0, 2.0], [-3.0, 1.0]], dtype=torch.float64)
    for rho in (0.1, 10.0):
        theta = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)

        def step(theta=theta):
            losses = {f"task{i}": row @ theta for i, row in enumerate(slopes)}
            return Step(losses, shared=[theta], recompute=step)

        balancer = Balancer(MGDAWeighting(), sharpness=TaskSAM(rho_shared=rho))
        report = balancer.backward(step())
        assert torch.equal(theta.grad, (report.weights @ slopes))
        assert report.scalars["sharpness/flat_norm"] == 0


def network(num_tasks, seed=1):
    torch.manual_seed(seed)
    tasks = [Task(f"task{i}", nn.Linear(8, 1), nn.MSELoss()) for i in range(num_tasks)]
    model = MultiTaskModel(nn.Sequential(nn.Linear(5, 8), nn.Tanh()), tasks).double()
    inputs = torch.randn(12, 5, dtype=torch.float64)
    targets = {task.name: torch.randn(12, 1, dtype=torch.float64) for task in tasks}
    return model, tasks, (inputs, targets)


def independent_sam(model, loss, rho, adaptive):
    """Single-task SAM and ASAM as their papers write them, by hand."""
    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(model), parameters)
    scales = [p.detach().abs() if adaptive else torch.ones_like(p) for p in parameters]
    norm = sum(((s * g) ** 2).sum() for s, g in zip(scales, gradients, strict=True)) ** 0.5
    with torch.no_grad():
        for p, s, g in zip(parameters, scales, gradients, strict=True):
            p += rho * s * s * g / norm
    return torch.autograd.grad(loss(model), parameters)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
@pytest.mark.parametrize("mode", ["decomposed", "direct"])
def test_t5_one_task_with_a_joint_norm_is_single_task_sam(adaptive, perturbation, mode):
    model, tasks, batch = network(1)
    expected = independent_sam(
        model,
        lambda m: tasks[0].loss(m(batch[0]).predictions["task0"], batch[1]["task0"]),
        0.3,
        adaptive,
    )
    sharpness = TaskSAM(
        rho_shared=0.3, adaptive=adaptive, norm="joint", perturbation=perturbation, combine=mode
    )
    balancer = Balancer(MGDAWeighting(), sharpness=sharpness)
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("x", "expected"), [(0.5, 2.4), (0.05, 0.6), (-0.05, -0.6)])
def test_t6_one_dimension(x, expected):
    curvature, centre = torch.full((1, 1), 4.0).double(), torch.zeros(1, 1).double()
    close(direction([x], step=quadratic([x], curvature, centre)), [expected])


@pytest.mark.parametrize("kind", ["joint_sam", "task_sam"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_t8_joint_perturbation_of_a_sum_is_single_task_sam(kind, adaptive):
    model, tasks, (inputs, targets) = network(3)

    def total(m):
        predictions = m(inputs).predictions
        return sum(t.loss(predictions[t.name], targets[t.name]) for t in tasks)

    expected = independent_sam(model, total, 0.2, adaptive)
    sharpness = (
        JointSAM(rho=0.2, adaptive=adaptive)
        if kind == "joint_sam"
        else TaskSAM(rho_shared=0.2, adaptive=adaptive, norm="joint", perturbation="joint")
    )
    balancer = Balancer(EqualWeighting(), sharpness=sharpness)
    balancer.backward(Step.evaluate(model, tasks, (inputs, targets), needs=balancer.needs))
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 3.0, 1.0]])
@pytest.mark.parametrize("norm", ["separate", "joint"])
def test_joint_sam_is_the_joint_direct_mode(weights, norm):
    model, tasks, batch = network(3)
    gradients = []
    for sharpness in (
        JointSAM(rho=0.2, norm=norm),
        *(
            TaskSAM(rho_shared=0.2, norm=norm, perturbation="joint", combine=mode)
            for mode in ("direct", "decomposed")
        ),
    ):
        for combine in (ConstantWeights(3, weights=weights), MGDAWeighting()):
            balancer = Balancer(combine, sharpness=sharpness)
            model.zero_grad()
            balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
            gradients.append([p.grad.clone() for p in model.parameters()])
    joint, weighing, direct, weighing_direct, decomposed, weighing_decomposed = gradients
    for p, q, r in zip(joint, direct, decomposed, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(p, r, rtol=1e-12, atol=1e-14)  # linear: no difference
    for p, q in zip(weighing, weighing_direct, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(weighing[0], weighing_decomposed[0])


def test_t7_frozen_weights_take_one_pass_at_the_joint_point():
    """`w (G + F)` from rows equals the gradient of the weighted sum at the perturbed point."""
    model, tasks, (inputs, targets) = network(3)
    weights, rho = [0.25, 3.0, 1.0], 0.3
    shared = model.shared_parameters()

    def rows(m):
        predictions = m(inputs).predictions
        losses = [t.loss(predictions[t.name], targets[t.name]) for t in tasks]
        parts = [torch.autograd.grad(x, m.shared_parameters(), retain_graph=True) for x in losses]
        return torch.stack([torch.cat([g.reshape(-1) for g in part]) for part in parts])

    clean = rows(model)
    w = torch.tensor(weights, dtype=torch.float64)
    offset = rho * (w @ clean) / (w @ clean).norm()
    moved = copy.deepcopy(model)
    with torch.no_grad():
        sizes = [p.numel() for p in shared]
        for p, e in zip(moved.shared_parameters(), offset.split(sizes), strict=True):
            p += e.view_as(p)
    flat = rows(moved) - clean
    sharpness = TaskSAM(rho_shared=rho, rho_task=0.0, perturbation="joint")
    balancer = Balancer(ConstantWeights(3, weights=weights), sharpness=sharpness)
    balancer.backward(Step.evaluate(model, tasks, (inputs, targets), needs=balancer.needs))
    found = torch.cat([p.grad.reshape(-1) for p in shared])
    torch.testing.assert_close(found, w @ (clean + flat), rtol=1e-12, atol=1e-14)
