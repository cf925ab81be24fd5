"""What holds for task-SAM over every combiner: section by section of the list I1 to I10."""

import itertools

import pytest
import torch
from torch import nn

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import (
    CAGradWeighting,
    FairGradWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    NashMTLWeighting,
    PCGradWeighting,
    UPGradWeighting,
)
from mtl.config import build
from mtl.scalarization import ConstantWeights, EqualWeighting
from mtl.sharpness import TaskSAM
from tests.support import PRESETS, compose_config, set_num_tasks
from tests.unit.sharpness.test_closed_forms import (
    CENTRES,
    CONFLICT,
    CURVATURES,
    PEACE,
    Recording,
    quadratic,
)

RADII = (1e-2, 1e-3, 1e-4)
HOMOGENEOUS = [
    *(CAGradWeighting, IMTLGWeighting, MGDAWeighting, PCGradWeighting),
    *(UPGradWeighting, EqualWeighting),
]


def gradient(combine, theta=CONFLICT, make=quadratic, **options):
    point, step = make(theta)
    balancer = Balancer(combine, sharpness=TaskSAM(**options))
    balancer.backward(step())
    return point.grad


def preset(name, radius=None, **options):
    """A registered balancer at the parameter level, with task-SAM around it."""
    config = compose_config(f"balancer={name}", "balancer.level=parameters").copy()
    set_num_tasks(config, 3)
    torch.manual_seed(0)
    balancer = build(config.balancer).double()
    if radius is not None:
        balancer = Balancer(
            balancer.combine,
            transforms=dict(balancer.transforms),
            regularizers=dict(balancer.regularizers),
            sharpness=TaskSAM(rho_shared=radius, **options),
            head_grad=balancer.head_grad,
        )
    balancer.on_epoch_start(0)
    return balancer


def problem():
    torch.manual_seed(1)
    tasks = [Task(f"task{i}", nn.Linear(8, 1), nn.MSELoss()) for i in range(3)]
    model = MultiTaskModel(nn.Sequential(nn.Linear(5, 8), nn.Tanh()), tasks).double()
    inputs = torch.randn(12, 5, dtype=torch.float64)
    targets = {task.name: torch.randn(12, 1, dtype=torch.float64) for task in tasks}
    return model, tasks, (inputs, targets)


def after(balancer):
    model, tasks, batch = problem()
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


BASES = [
    name for name in PRESETS if compose_config(f"balancer={name}").balancer.get("sharpness") is None
]


@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
@pytest.mark.parametrize("name", BASES)
def test_i1_radius_to_zero_gives_the_base(name, perturbation):
    """The difference to the base falls linearly with the radius, for every combiner."""
    base = after(preset(name))
    assert torch.equal(after(preset(name, 0.0, perturbation=perturbation)), base)
    distances = [
        float((after(preset(name, radius, perturbation=perturbation)) - base).norm())
        for radius in RADII
    ]
    assert distances[0] > 0
    for larger, smaller in itertools.pairwise(distances):
        assert smaller == pytest.approx(larger / 10, rel=0.15)


def test_i1_radius_zero_makes_no_second_pass():
    point, make = quadratic(CONFLICT)
    step = make()
    step._recompute = lambda: pytest.fail("a second pass")
    Balancer(MGDAWeighting(), sharpness=TaskSAM(rho_shared=0.0)).backward(step)
    assert point.grad is not None


@pytest.mark.parametrize("combine", [NashMTLWeighting, FairGradWeighting])
def test_i1_without_matched_scale_the_base_is_missed_and_a_warning_says_so(combine):
    options = {"alpha": 2.0} if combine is FairGradWeighting else {}
    point, make = quadratic(CONFLICT)
    Balancer(combine(**options)).backward(make())
    with pytest.warns(RuntimeWarning, match="not homogeneous of degree one"):
        naive = gradient(combine(**options), rho_shared=1e-4, scale_match=False)
    matched = gradient(combine(**options), rho_shared=1e-4)
    assert (naive - point.grad).norm() > 0.1 * point.grad.norm()
    assert (matched - point.grad).norm() < 1e-3 * point.grad.norm()


@pytest.mark.parametrize("combine", HOMOGENEOUS)
def test_i2_scaling_all_losses_scales_the_gradient(combine):
    def scaled(theta, factor=7.0):
        point, make = quadratic(theta)

        def step():
            original = make()
            losses = {name: factor * loss for name, loss in original.losses.items()}
            return Step(losses, shared=[point], recompute=step)

        return point, step

    plain = gradient(combine(), rho_shared=0.1)
    torch.testing.assert_close(gradient(combine(), make=scaled, rho_shared=0.1), 7 * plain)


@pytest.mark.parametrize("combine", [CAGradWeighting, IMTLGWeighting, MGDAWeighting])
def test_i3_order_of_tasks_does_not_matter(combine):
    def turned(theta):
        point, make = quadratic(theta)

        def step():
            losses = dict(reversed(make().losses.items()))
            return Step(losses, shared=[point], recompute=step)

        return point, step

    plain = gradient(combine(), rho_shared=0.1)
    torch.testing.assert_close(gradient(combine(), make=turned, rho_shared=0.1), plain)


def rows_of(make, theta, **options):
    combine = Recording()
    _, step = make(theta)
    balancer = Balancer(combine, sharpness=TaskSAM(rho_shared=0.1, **options))
    report = balancer.backward(step())
    return combine.seen[0], balancer.sharpness.flat_combine.seen[0], report


def test_i4_equal_tasks_have_equal_flat_parts():
    curvatures = torch.tensor([[4.0, 1.0], [4.0, 1.0]], dtype=torch.float64)
    centres = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    _, flat, _ = rows_of(lambda theta: quadratic(theta, curvatures, centres), PEACE)
    assert torch.equal(flat[0], flat[1])


def test_i5_tasks_on_separate_parameters_have_separate_flat_parts():
    curvatures = torch.tensor([[4.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    _, flat, _ = rows_of(lambda theta: quadratic(theta, curvatures), PEACE)
    assert flat[0, 1] == 0
    assert flat[1, 0] == 0
    assert flat[0, 0] != 0
    assert flat[1, 1] != 0


def test_i6_adaptive_perturbation_does_not_depend_on_the_scale_of_parameters():
    def stretched(theta, scale=3.0):
        point, _ = quadratic([scale * t for t in theta])

        def step():
            losses = 0.5 * (CURVATURES * (point / scale - CENTRES) ** 2).sum(1)
            named = {f"task{i}": loss for i, loss in enumerate(losses)}
            return Step(named, shared=[point], recompute=step)

        return point, step

    _, _, plain = rows_of(quadratic, PEACE, adaptive=True)
    _, _, other = rows_of(stretched, PEACE, adaptive=True)
    for name in ("sharpness/rise/task0", "sharpness/rise/task1"):
        torch.testing.assert_close(plain.scalars[name], other.scalars[name])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("norm", ["separate", "joint"])
def test_i7_perturbations_are_as_long_as_the_radii_and_go_uphill(adaptive, norm):
    model, tasks, batch = problem()
    clean = {name: p.detach().clone() for name, p in model.named_parameters()}
    moves = []

    def watched(recompute):
        def call(*args):
            moves.append({name: p.detach() - clean[name] for name, p in model.named_parameters()})
            return recompute(*args)

        return call

    sharpness = TaskSAM(rho_shared=0.3, rho_task=0.1, adaptive=adaptive, norm=norm)
    balancer = Balancer(MGDAWeighting(), sharpness=sharpness)
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    named = dict(model.named_parameters())
    slopes = {
        name: torch.autograd.grad(loss, named.values(), retain_graph=True, allow_unused=True)
        for name, loss in step.losses.items()
    }
    step._recompute._run = watched(step._recompute._run)
    report = balancer.backward(step)

    def length(move, part):
        values = [
            (v / clean[n].abs() if adaptive else v).reshape(-1)
            for n, v in move.items()
            if n.startswith(part)
        ]
        return torch.cat(values).norm()

    for task, move in zip(tasks, moves, strict=True):
        shared, head = length(move, "backbone"), length(move, f"heads.{task.name}")
        others = [v for n, v in move.items() if n.startswith("heads") and task.name not in n]
        assert not any(v.any() for v in others)
        if norm == "separate":
            assert float(shared) == pytest.approx(0.3, rel=1e-6)
            assert float(head) == pytest.approx(0.1, rel=1e-6)
        else:
            whole = torch.stack([shared / 0.3, head / 0.1]).norm()
            assert float(whole) == pytest.approx(1, rel=1e-6)
        for n, g in zip(named, slopes[task.name], strict=True):
            assert g is None or float((g * move[n]).sum()) >= 0
        assert report.scalars[f"sharpness/rise/{task.name}"] > 0


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 3.0, 1.0]])
@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
def test_i8_modes_agree_for_linear_combiners(weights, perturbation):
    results = [
        after(
            Balancer(
                ConstantWeights(3, weights=weights),
                sharpness=TaskSAM(rho_shared=0.2, combine=mode, perturbation=perturbation),
            )
        )
        for mode in ("decomposed", "direct", "second", "each")
    ]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("combine", HOMOGENEOUS)
def test_i9_no_warning_for_combiners_of_degree_one(combine, recwarn):
    gradient(combine(), rho_shared=0.1, scale_match=False)
    assert not recwarn.list


@pytest.mark.parametrize("combine", HOMOGENEOUS)
def test_i10_matching_the_scale_changes_nothing_for_degree_one(combine):
    torch.manual_seed(3)
    plain = gradient(combine(), rho_shared=0.1, scale_match=False)
    torch.manual_seed(3)
    matched = gradient(combine(), rho_shared=0.1)
    torch.testing.assert_close(matched, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("combine", [*HOMOGENEOUS, NashMTLWeighting, FairGradWeighting])
def test_i10_finite_where_the_flat_part_is_zero(combine):
    slopes = torch.tensor([[1.0, 2.0], [-3.0, 1.0]], dtype=torch.float64)
    theta = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)

    def step():
        losses = {f"task{i}": row @ theta for i, row in enumerate(slopes)}
        return Step(losses, shared=[theta], recompute=step)

    found = []
    for sharpness in (None, TaskSAM(rho_shared=0.1)):
        torch.manual_seed(3)
        theta.grad = None
        Balancer(combine(), sharpness=sharpness).backward(step())
        found.append(theta.grad.clone())
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("combine", [MGDAWeighting, EqualWeighting])
@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
def test_flat_part_is_multiplied_by_its_coefficient(coefficient, combine, perturbation):
    options = {"rho_shared": 0.1, "perturbation": perturbation}
    point, make = quadratic(CONFLICT)
    Balancer(combine()).backward(make())
    flat = gradient(combine(), **options) - point.grad
    found = gradient(combine(), **options, flat_coef=coefficient)
    torch.testing.assert_close(found, point.grad + coefficient * flat)
