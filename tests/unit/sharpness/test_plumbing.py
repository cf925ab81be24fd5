"""State and plumbing of task-SAM: S1 to S12, bad input, and the trap of reused weights."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mtl import Aggregator, Balancer, MTLModule, MultiTaskModel, Step, Task, Weighting
from mtl.aggregation import EMA, CAGradWeighting, MGDAWeighting, MoCo, PCGradWeighting
from mtl.errors import ConfigError, NonFiniteError, UnsupportedError
from mtl.scalarization import DynamicWeightAverage, UncertaintyWeighting
from mtl.sharpness import JointSAM, TaskSAM
from mtl.sharpness.perturbation import perturbed
from tests.contract.test_training import fit
from tests.support import ToyData, assert_same, make_model, state_of

KINDS = {
    "per task": lambda **o: TaskSAM(rho_shared=0.2, **o),
    "joint": lambda **o: TaskSAM(rho_shared=0.2, perturbation="joint", **o),
    "direct": lambda **o: TaskSAM(rho_shared=0.2, combine="direct", **o),
    "joint_sam": lambda **o: JointSAM(rho=0.2, **o),
}


class Layers(nn.Module):
    """Everything with buffers that a forward pass changes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 16)
        self.norm = nn.BatchNorm1d(16)
        self.average = nn.BatchNorm1d(16, momentum=None)
        self.instance = nn.InstanceNorm1d(4, track_running_stats=True)
        self.dropout = nn.Dropout(0.3)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        x = self.dropout(self.average(self.norm(self.first(x).tanh())))
        return self.instance(x.unflatten(1, (4, 4))).flatten(1)


def problem(backbone=None, num_tasks=3, dtype=torch.float64):
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Linear(5, 16), nn.Tanh()) if backbone is None else backbone
    tasks = [Task(f"task{i}", nn.Linear(16, 1), nn.MSELoss()) for i in range(num_tasks)]
    model = MultiTaskModel(backbone, tasks).to(dtype)
    return model, tasks, ToyData(12, num_tasks, dtype).batch()


def backward(balancer, model, tasks, batch, *, observed=False):
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    step.observed = observed
    return balancer.backward(step)


class Bomb(nn.Linear):
    """Raises in its n-th forward pass."""

    def __init__(self, *sizes, at):
        super().__init__(*sizes)
        self.at = at

    def forward(self, x):
        self.at -= 1
        if self.at == 0:
            raise KeyboardInterrupt
        return super().forward(x)


@pytest.mark.parametrize("kind", KINDS)
def test_s1_parameters_and_buffers_are_those_of_one_clean_pass(kind):
    model, tasks, batch = problem(Layers())
    once = copy.deepcopy(model)
    torch.manual_seed(3)
    once(batch[0])
    torch.manual_seed(3)
    backward(Balancer(MGDAWeighting(), sharpness=KINDS[kind]()), model, tasks, batch)
    assert_same(state_of(model), state_of(once))
    assert int(model.backbone.norm.num_batches_tracked) == 1
    assert model.backbone.norm.momentum == 0.1
    assert model.backbone.average.momentum is None


@pytest.mark.parametrize("kind", KINDS)
def test_s1_also_after_an_error_in_the_second_pass(kind):
    model, tasks, batch = problem(nn.Sequential(Layers(), Bomb(16, 16, at=2)))
    once = copy.deepcopy(model)
    torch.manual_seed(3)
    once(batch[0])
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        backward(Balancer(MGDAWeighting(), sharpness=KINDS[kind]()), model, tasks, batch)
    assert_same(state_of(model), state_of(once))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_s2_running_statistics_go_on_after_many_steps(kind):
    """A helper that sets momentum to 0 and back loses it when it is called twice."""
    model, tasks, batch = problem(Layers())
    balancer = Balancer(MGDAWeighting(), sharpness=KINDS[kind]())
    means = []
    for _ in range(3):
        backward(balancer, model, tasks, batch)
        means.append(model.backbone.norm.running_mean.clone())
    assert not torch.equal(means[1], means[2])
    assert int(model.backbone.norm.num_batches_tracked) == 3
    assert int(model.backbone.average.num_batches_tracked) == 3


def test_s3_dropout_has_the_same_mask_in_both_passes():
    model, tasks, batch = problem(nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.3)))
    ratios = []
    for rho in (1e-1, 1e-2, 1e-3):
        torch.manual_seed(3)
        sharpness = TaskSAM(rho_shared=rho)
        report = backward(Balancer(PCGradWeighting(), sharpness=sharpness), model, tasks, batch)
        ratios.append(
            float(report.scalars["sharpness/flat_norm"] / report.scalars["sharpness/loss_norm"])
        )
    assert ratios[1] == pytest.approx(ratios[0] / 10, rel=0.1)
    assert ratios[2] == pytest.approx(ratios[1] / 10, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_s3_random_state_is_that_after_one_forward_pass(kind):
    model, tasks, batch = problem(nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.3)))
    balancer = Balancer(MGDAWeighting(), sharpness=KINDS[kind]())
    torch.manual_seed(3)
    model(batch[0])
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    backward(balancer, model, tasks, batch)
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(
    ("kind", "forwards", "backwards"),
    [("per task", 4, 6), ("joint", 2, 6), ("direct", 4, 6), ("joint_sam", 2, 4)],
)
def test_s4_numbers_of_passes(kind, forwards, backwards, monkeypatch):
    model, tasks, batch = problem()
    counts = {"forward": 0, "backward": 0}
    model.backbone.register_forward_hook(lambda *_: counts.update(forward=counts["forward"] + 1))
    differentiate = Step.differentiate

    def counted(self, *args, **kwargs):
        counts["backward"] += 1
        return differentiate(self, *args, **kwargs)

    monkeypatch.setattr(Step, "differentiate", counted)
    backward(Balancer(MGDAWeighting(), sharpness=KINDS[kind]()), model, tasks, batch)
    assert counts == {"forward": forwards, "backward": backwards}


class Counting(Aggregator):
    """The sum; keeps what it saw and how often."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen = []

    def forward(self, jacobian):
        self.calls += 1
        self.seen.append(jacobian.clone())
        return jacobian.sum(0)


@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
def test_s5_each_part_has_a_combiner_of_its_own(perturbation):
    model, tasks, batch = problem()
    combine = Counting()
    sharpness = TaskSAM(rho_shared=1e-3, perturbation=perturbation, scale_match=False)
    balancer = Balancer(combine, sharpness=sharpness)
    plain = Counting()
    backward(Balancer(plain), model, tasks, batch)
    for _ in range(2):
        backward(balancer, model, tasks, batch)
    flat = balancer.sharpness.flat_combine
    assert int(combine.calls) == 2
    torch.testing.assert_close(combine.seen[0], plain.seen[0])
    assert all(rows.norm() < 0.1 * plain.seen[0].norm() for rows in flat.seen)
    assert "sharpness.flat_combine.calls" in balancer.state_dict()


def test_s5_what_the_optimizer_learns_is_shared_with_the_copy():
    class Learning(Weighting):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(3))

        def forward(self, gramian):
            return self.logits.softmax(0).to(gramian)

    balancer = Balancer(Learning(), sharpness=TaskSAM())
    assert len(list(balancer.parameters())) == 1
    assert balancer.sharpness.flat_combine.logits is balancer.combine.logits


def test_s6_parameters_that_a_task_does_not_reach_have_no_row():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Linear(5, 16)
            self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

        def forward(self, x):
            return [branch(self.trunk(x).tanh()) for branch in self.branches]

    class Head(nn.Linear):
        def __init__(self, index):
            super().__init__(16, 1)
            self.index = index

        def forward(self, features):
            return super().forward(features[self.index].tanh())

    torch.manual_seed(0)
    tasks = [Task(f"task{i}", Head(i), nn.MSELoss()) for i in range(3)]
    model = MultiTaskModel(Branches(), tasks).double()
    combine = Counting()
    balancer = Balancer(combine, sharpness=TaskSAM(rho_shared=0.1))
    backward(balancer, model, tasks, ToyData(12, 3, torch.float64).batch())
    sizes = [p.numel() for p in model.shared_parameters()]
    names = [n for n, _ in model.backbone.named_parameters()]
    for rows in (combine.seen[0], balancer.sharpness.flat_combine.seen[0]):
        for i, row in enumerate(rows):
            for name, part in zip(names, row.split(sizes), strict=True):
                reached = name.startswith(("trunk", f"branches.{i}"))
                assert bool(part.any()) == reached


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to_none", [True, False])
def test_s7_gradients_of_a_step_do_not_depend_on_the_step_before(kind, to_none):
    model, tasks, batch = problem()
    balancer = Balancer(MGDAWeighting(), sharpness=KINDS[kind]())
    found = []
    for _ in range(2):
        model.zero_grad(set_to_none=to_none)
        backward(balancer, model, tasks, batch)
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_s8_a_second_pass_that_is_not_finite_skips_the_step(kind, what):
    passes = {"count": 0}

    class Late(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss, broken):
            ctx.broken = broken
            return loss * torch.nan if broken and what == "loss" else loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.nan if ctx.broken else gradient, None

    def loss(prediction, target):
        passes["count"] += 1
        return Late.apply((prediction - target).square().mean(), passes["count"] > 1)

    model, tasks, batch = problem()
    tasks[1] = Task("task1", model.heads["task1"], loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    balancer = Balancer(MGDAWeighting(), sharpness=KINDS[kind]())
    before = state_of(model)
    report = backward(balancer, model, tasks, batch)
    assert report.nonfinite == ("task1",)
    assert int(balancer.skipped_steps) == 1
    assert all(p.grad is None for p in model.parameters())
    optimizer.step()
    assert_same(state_of(model), before)
    assert not optimizer.state
    passes["count"] = 0
    strict = Balancer(MGDAWeighting(), sharpness=KINDS[kind](), on_nonfinite="raise")
    with pytest.raises(NonFiniteError):
        backward(strict, model, tasks, batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["head", "shared"])
def test_s8_gradients_that_are_not_finite_with_finite_losses(kind, where):
    """Also without rows, and in a head alone: `sqrt` of what becomes zero in the second pass."""
    model, tasks, batch = problem()
    calls = {"count": 0}

    def spoil(gradient):
        calls["count"] += 1
        return gradient * torch.nan if calls["count"] > (1 if where == "head" else 3) else gradient

    part = model.heads["task2"].weight if where == "head" else model.backbone[0].weight
    part.register_hook(spoil)
    combine = UncertaintyWeighting(3).double() if kind == "joint_sam" else MGDAWeighting()
    calls["count"] = 2 if kind == "joint_sam" and where == "shared" else 0
    balancer = Balancer(combine, sharpness=KINDS[kind]())
    report = backward(balancer, model, tasks, batch)
    assert "task2" in report.nonfinite
    assert all(p.grad is None for p in model.parameters())


def two_processes(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(4 * rank, 4 * rank + 4)
    results = {(k, synced): three_steps(k, synced, rows) for k in KINDS for synced in (True, False)}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def three_steps(kind, synced, rows):
    model, tasks, _ = problem()
    balancer = Balancer(CAGradWeighting(), sharpness=KINDS[kind](sync_perturbation=synced)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(3):
        inputs, targets = ToyData(24, 3, torch.float64).batch(slice(8 * i, 8 * i + 8))
        optimizer.zero_grad()
        batch = inputs[rows], {name: values[rows] for name, values in targets.items()}
        backward(balancer, model, tasks, batch)
        optimizer.step()
    return state_of(model)


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s9")
    mp.spawn(two_processes, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_s9_two_processes(kind, distributed):
    """Alike in both processes; synced as one process on all samples, local perturbations not."""
    one = three_steps(kind, True, slice(None))
    for synced in (True, False):
        first, second = (results[kind, synced] for results in distributed)
        assert_same(first, second)
        error = max(float((first[name] - one[name]).abs().max()) for name in one)
        assert error < 1e-12 if synced else 1e-6 < error < 0.1


def lazy_module():
    model, tasks = make_model(noisy=True)
    sharpness = TaskSAM(rho_shared=0.1, every=3, start=0.25)
    balancer = Balancer(EMA(PCGradWeighting(seed=0), 3), sharpness=sharpness)
    return MTLModule(model, tasks, balancer, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))


def test_s10_resumes_to_the_bit_and_adds_nothing_to_the_optimizer(tmp_path):
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=7)
    whole = lazy_module()
    trainer = fit(whole, tmp_path, callbacks=[keep], enable_checkpointing=True)
    (group,) = trainer.optimizers[0].state_dict()["param_groups"]
    assert len(group["params"]) == len(list(whole.model.parameters()))
    resumed = lazy_module()
    fit(resumed, tmp_path, ckpt_path=tmp_path / "step=7.ckpt")
    assert_same(state_of(whole), state_of(resumed))
    states = [m.balancer.sharpness.get_extra_state() for m in (whole, resumed)]
    assert [state["calls"] for state in states] == [9, 9]  # of 12 steps
    assert torch.equal(states[0]["kept"], states[1]["kept"])


def test_s11_a_graph_of_the_clean_point_cannot_be_used_after_the_perturbation():
    model, tasks, batch = problem()
    step = Step.evaluate(model, tasks, batch)
    with perturbed([(p, torch.ones_like(p), torch.tensor(0.1)) for p in model.parameters()]):
        pass
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step.losses["task0"].backward()


def test_s12_flat_rows_are_products_with_the_hessian():
    """`f_i = rho H_i g_i / |g_i|` up to a relative error that is linear in rho."""
    model, tasks, (inputs, targets) = problem()
    shared = model.shared_parameters()
    expected = []
    for task in tasks:
        loss = task.loss(model(inputs).predictions[task.name], targets[task.name])
        slopes = torch.autograd.grad(loss, shared, create_graph=True)
        row = torch.cat([g.reshape(-1) for g in slopes])
        product = torch.autograd.grad(row @ (row / row.norm()).detach(), shared)
        expected.append(torch.cat([h.reshape(-1) for h in product]))
    errors = []
    for rho in (2e-3, 1e-3):
        combine = Counting()
        sharpness = TaskSAM(rho_shared=rho, rho_task=0.0, scale_match=False)
        balancer = Balancer(combine, sharpness=sharpness)
        backward(balancer, model, tasks, (inputs, targets))
        rows = balancer.sharpness.flat_combine.seen[0]
        exact = rho * torch.stack(expected)
        errors.append(float(((rows - exact).norm(dim=1) / exact.norm(dim=1)).max()))
    assert errors[0] < 0.05
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.05)


# ----------------------------------------------------------------------------- beyond the list


@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
def test_weights_of_the_loss_part_are_not_reused_for_the_flat_part(perturbation):
    """The trap: a task that MGDA gives no weight would lose its flat part for good."""
    slopes = torch.tensor([[1.0, 0.0], [5.0, 0.0]], dtype=torch.float64)
    bends = torch.tensor([[9.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    point = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def step():
        losses = (
            slopes @ point + 0.5 * bends @ point.square() + torch.stack([0 * point[0], point[1]])
        )
        return Step({"a": losses[0], "b": losses[1]}, shared=[point], recompute=step)

    sharpness = TaskSAM(rho_shared=0.5, perturbation=perturbation)
    balancer = Balancer(MGDAWeighting(), sharpness=sharpness)
    report = balancer.backward(step())
    torch.testing.assert_close(report.weights, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert abs(float(point.grad[1])) > 1e-3  # the second task's flat part is in its direction alone


def gradients_of(sharpness, progress=None, combine=None, **kwargs):
    model, tasks, batch = problem(**kwargs)
    balancer = Balancer(combine or MGDAWeighting(), sharpness=sharpness)
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    step.progress = progress
    balancer.backward(step)
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize(
    ("progress", "on"), [(0.0, False), (0.69, False), (0.7, True), (1.0, True)]
)
def test_start_is_a_share_of_the_training(progress, on):
    found = gradients_of(TaskSAM(rho_shared=0.2, start=0.7), progress)
    assert torch.equal(found, gradients_of(TaskSAM(rho_shared=0.2) if on else None))


def test_start_without_known_progress_warns_once_and_starts():
    sharpness = TaskSAM(rho_shared=0.2, start=0.7)
    with pytest.warns(RuntimeWarning, match=r"step\.progress"):
        found = gradients_of(sharpness)
    assert torch.equal(found, gradients_of(TaskSAM(rho_shared=0.2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients_of(sharpness)


@pytest.mark.parametrize("perturbation", ["per_task", "joint"])
@pytest.mark.parametrize("combine", [MGDAWeighting, UncertaintyWeighting])
def test_every_adds_the_orthogonal_part_in_between(perturbation, combine):
    def make():
        return combine(3).double() if combine is UncertaintyWeighting else combine()

    model, tasks, batch = problem()
    shared = model.shared_parameters()
    sharpness = TaskSAM(rho_shared=0.2, perturbation=perturbation, every=3)
    balancer = Balancer(make(), sharpness=sharpness)
    found = []
    for _ in range(4):
        model.zero_grad()
        backward(balancer, model, tasks, batch)
        found.append(torch.cat([p.grad.reshape(-1) for p in shared]))
    model.zero_grad()
    backward(Balancer(make()), model, tasks, batch)
    loss = torch.cat([p.grad.reshape(-1) for p in shared])
    flat = found[0] - loss
    orthogonal = flat - (flat @ loss) / (loss @ loss) * loss
    assert orthogonal.norm() > 1e-4 * loss.norm()
    for between in found[1:3]:
        torch.testing.assert_close(between, loss + orthogonal)
    torch.testing.assert_close(found[3], found[0])


@pytest.mark.parametrize("combine", ["decomposed", "direct"])
def test_without_reuse_the_steps_in_between_are_the_balancers_own(combine):
    sharpness = TaskSAM(rho_shared=0.2, combine=combine, every=2, reuse=False)
    first, between, third = (gradients_of(sharpness) for _ in range(3))
    assert torch.equal(between, gradients_of(None))
    assert torch.equal(first, gradients_of(TaskSAM(rho_shared=0.2, combine=combine)))
    assert torch.equal(third, first)
    assert sharpness.get_extra_state()["kept"] is None


def test_losses_that_weightings_read_are_those_of_the_clean_point():
    for sharpness in (TaskSAM(rho_shared=0.5), JointSAM(rho=0.5)):
        model, tasks, batch = problem()
        combine = DynamicWeightAverage(3).double()
        report = backward(Balancer(combine, sharpness=sharpness), model, tasks, batch)
        torch.testing.assert_close(combine.sums, report.losses)


def test_a_tasks_own_log():
    model, tasks, batch = problem()
    balancer = Balancer(MGDAWeighting(), sharpness=TaskSAM())
    report = backward(balancer, model, tasks, batch, observed=True)
    expected = {f"sharpness/{k}/task{i}" for k in ("rise", "cosine") for i in range(3)}
    assert set(report.scalars) == expected | {"sharpness/loss_norm", "sharpness/flat_norm"}
    assert all(-1 <= report.scalars[f"sharpness/cosine/task{i}"] <= 1 for i in range(3))


@pytest.mark.parametrize(("rho", "warns"), [(1e-3, True), (1.0, False)])
def test_flat_parts_that_are_rounding_noise_are_told(rho, warns, recwarn):
    model, tasks, batch = problem(dtype=torch.float32)
    balancer = Balancer(MGDAWeighting(), sharpness=TaskSAM(rho_shared=rho))
    context = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    for _ in range(2):
        step = Step.evaluate(model, tasks, batch, needs=balancer.needs, context=context)
        balancer.backward(step)
    messages = [w for w in recwarn.list if "rounding noise" in str(w.message)]
    assert len(messages) == int(warns)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TaskSAM(rho_shared=-0.1), "`rho_shared` should be a radius, 0 or more. Got -0.1"),
        (lambda: TaskSAM(rho_task=-1.0), "`rho_task` should be a radius"),
        (lambda: TaskSAM(rho_shared=float("nan")), "`rho_shared` should be a radius"),
        (lambda: JointSAM(rho=-0.1), "should be a radius"),
        (lambda: TaskSAM(norm="both"), '`norm` should be "separate" or "joint". Got \'both\''),
        (lambda: TaskSAM(combine="indirect"), "`combine` should be one of .* Got 'indirect'"),
        (lambda: TaskSAM(perturbation="none"), "`perturbation` should be one of"),
        (lambda: TaskSAM(flat_coef=-1.0), "`flat_coef` should be 0 or more"),
        (lambda: TaskSAM(flat_coef=2.0, combine="direct"), "`flat_coef` needs"),
        (lambda: TaskSAM(every=0), "`every` should be 1 or more"),
        (lambda: TaskSAM(every=2, combine="direct"), "`every` > 1 reuses the flat part"),
        (lambda: TaskSAM(start=1.5), "`start` should be a share of the training"),
        (
            lambda: Balancer(MGDAWeighting(), sharpness=TaskSAM(), level="representation"),
            '`level` should be "parameters"',
        ),
        (
            lambda: Balancer(EMA(MGDAWeighting(), 3), sharpness=TaskSAM(combine="second")),
            "without state for single tasks. Got EMA",
        ),
        (lambda: Balancer(MoCo(3), sharpness=TaskSAM(combine="each")), "Got MoCo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_options(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_evaluation_mode_is_refused(kind):
    model, tasks, batch = problem()
    before = state_of(model)
    with pytest.raises(UnsupportedError, match="should be in train mode"):
        backward(Balancer(MGDAWeighting(), sharpness=KINDS[kind]()), model.eval(), tasks, batch)
    assert_same(state_of(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_parameters_that_heads_share_are_refused():
    class Tied(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.own = inner, nn.Linear(16, 1)

        def forward(self, x):
            return self.own(self.inner(x))

    inner = nn.Linear(16, 16)
    tasks = [Task(f"task{i}", Tied(inner), nn.MSELoss()) for i in range(3)]
    model = MultiTaskModel(nn.Linear(5, 16), tasks).double()
    batch = ToyData(12, 3, torch.float64).batch()
    with pytest.raises(UnsupportedError, match="heads share among themselves"):
        backward(Balancer(MGDAWeighting(), sharpness=TaskSAM()), model, tasks, batch)
    assert all(p.grad is None for p in model.parameters())
    backward(Balancer(MGDAWeighting(), sharpness=JointSAM()), model, tasks, batch)
    assert all(p.grad is not None for p in model.parameters())


def test_a_step_that_cannot_be_recomputed_says_how():
    point = torch.ones(2, requires_grad=True)
    step = Step({"a": point.sum(), "b": point.square().sum()}, shared=[point])
    with pytest.raises(UnsupportedError, match="cannot be recomputed"):
        Balancer(MGDAWeighting(), sharpness=TaskSAM()).backward(step)
    assert point.grad is None
