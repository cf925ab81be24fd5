"""TSR and CSA in a step: second derivatives through the heads, and everything around them."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from mtl import Balancer, MultiTaskModel, Step, Task
from mtl.aggregation import GradDrop, PCGradWeighting
from mtl.errors import ConfigError, UnsupportedError
from mtl.linalg import Product, dense
from mtl.losses import MSE, CrossEntropy
from mtl.parts import Needs
from mtl.regularizers import CSA, TSR, csa, tsr
from mtl.scalarization import EqualWeighting, UncertaintyWeighting
from mtl.transforms import Log
from tests.unit.core.toy import flat, grads, losses_of, multi_input, normal, problem

NAMES = ("a", "b", "c")


def smooth(*shape_of_z, norm=False):
    """A problem with smooth two-layer heads; `shape_of_z`: B, C, height, width, or tokens."""
    samples, channels, *positions = shape_of_z
    torch.manual_seed(0)
    spatial = len(positions) == 2
    layer = (lambda i, o: nn.Conv2d(i, o, 3, padding=1)) if spatial else nn.Linear
    middle = [nn.BatchNorm2d(5)] if norm else []
    heads = {
        name: nn.Sequential(layer(channels, 5), *middle, nn.Softplus(), layer(5, 2))
        for name in NAMES
    }
    backbone = nn.Sequential(layer(3, channels), nn.Tanh())
    model = MultiTaskModel(backbone, heads).double()
    tokens = positions if len(positions) == 1 else []
    inputs = normal(samples, *tokens, 3, *(positions if spatial else []), seed=1)
    out = (samples, *tokens, 2, *(positions if spatial else []))
    targets = {name: normal(*out, seed=i) * 2.0**i for i, name in enumerate(NAMES)}
    return model, [Task(n, h, MSE()) for n, h in model.heads.items()], (inputs, targets)


def terms(model, tasks, batch, *, log=True, form=lambda s: s.flatten(2)):
    """The losses (or their logarithms) and both terms, in one graph by plain autograd."""
    losses, representation = losses_of(model, tasks, batch)
    values = torch.log(losses + 1e-8) if log else losses
    saliency = [
        torch.autograd.grad(v, representation[t.name][0], create_graph=True)[0]
        for v, t in zip(values, tasks, strict=True)
    ]
    saliency = form(torch.stack(saliency).flatten(0, 1)).unflatten(0, (len(tasks), -1))
    return values, tsr(saliency), csa(saliency, 0.1)


def rep_mtl(combine=None, **options):
    parts = [TSR(**options), CSA(**options)]
    return Balancer(combine, transforms=[Log()], regularizers=parts, on_nonfinite="raise")


FORMS = {
    "pictures": ((4, 3, 5, 6), lambda s: s.flatten(2)),
    "vectors": ((4, 3), lambda s: s[:, :, None]),
    "tokens": ((4, 3, 6), lambda s: s.transpose(1, 2)),
}


@pytest.mark.parametrize(
    ("form", "norm"),
    [("pictures", False), ("pictures", True), ("vectors", False), ("tokens", False)],
)
def test_the_gradient_is_that_of_the_whole_in_one_graph(form, norm):
    shape, to_positions = FORMS[form]
    model, tasks, batch = smooth(*shape, norm=norm)
    twin = copy.deepcopy(model)
    values, first, second = terms(twin, tasks_like(twin, tasks), batch, form=to_positions)
    parameters = [*twin.parameters()]
    expected = flat(values.sum() + 0.9 * first + 0.9 * second, parameters)
    balancer = rep_mtl()
    report = balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    torch.testing.assert_close(grads(model.parameters()), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(report.scalars["regularizer/tsr"], 0.9 * first.detach())
    torch.testing.assert_close(report.scalars["regularizer/csa"], 0.9 * second.detach())
    share = (grads(model.parameters()) - flat_base(model, tasks, batch)).norm()
    assert share > 1e-3 * expected.norm()
    torch.testing.assert_close(state(model), state(twin))  # running statistics


class Skip(nn.Conv2d):
    """A convolution that is not all that its head does."""

    def forward(self, inputs):
        return super().forward(inputs) + inputs[:, :2]


class Around(nn.Module):
    """A head that reads its input twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 2, 1)

    def forward(self, inputs):
        return self.layer(inputs) + inputs[:, :2].square()


class Inside(nn.Module):
    """A head that changes its input first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 2, 1)

    def forward(self, inputs):
        return self.layer(inputs.square())


LINEAR_HEADS = {
    "all": (lambda: nn.Conv2d(4, 2, 1), lambda: nn.Conv2d(4, 3, 1, bias=False), [True, True]),
    "read twice": (lambda: nn.Sequential(nn.Conv2d(4, 2, 1)), Around, [True, False]),
    "changed input": (lambda: nn.Conv2d(4, 1, 1), Inside, [True, False]),
    "subclass": (lambda: nn.Conv2d(4, 2, 1), lambda: Skip(4, 2, 1), [True, False]),
    "in place": (
        lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(inplace=True)),
        lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.Hardtanh(inplace=True)),
        [False, False],
    ),
    "wide": (lambda: nn.Conv2d(4, 4, 1), lambda: nn.Conv2d(4, 2, 3, padding=1), [False, False]),
    "grouped": (lambda: nn.Conv2d(4, 2, 1, groups=2), lambda: nn.Conv2d(4, 2, 1), [False, True]),
}


@pytest.mark.parametrize("kind", LINEAR_HEADS)
def test_heads_of_one_pointwise_convolution(kind):
    """Their saliency stays a product; the gradient is that of the whole in one graph."""
    torch.manual_seed(0)
    first, second, factored = LINEAR_HEADS[kind]
    heads = {"a": first(), "b": second()}
    model = MultiTaskModel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), heads).double()
    inputs = normal(5, 3, 6, 7, seed=1)
    targets = {name: normal(*p.shape) for name, p in model(inputs).predictions.items()}
    tasks = [Task(n, h, MSE()) for n, h in model.heads.items()]
    values, tsr_value, csa_value = terms(
        model, tasks, (inputs, targets), form=lambda s: s.flatten(2)
    )
    expected = flat(values.sum() + 0.9 * (tsr_value + csa_value), [*model.parameters()])
    balancer = rep_mtl()
    step = Step.evaluate(model, tasks, (inputs, targets), needs=balancer.needs)
    found = [s for (s,) in step.saliencies(1e-8, factored=True).values()]
    assert [isinstance(s, Product) for s in found] == factored
    whole = [s for (s,) in step.saliencies(1e-8).values()]
    for ours, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(dense(ours), theirs)
    step.observed = True
    report = balancer.backward(step)
    torch.testing.assert_close(grads(model.parameters()), expected, rtol=1e-9, atol=1e-12)
    total = sum(s.detach() for s in whole).norm()
    torch.testing.assert_close(report.scalars["tasks/gradient_norm"], total)


def tasks_like(model, tasks):
    return [Task(t.name, model.heads[t.name], t.loss) for t in tasks]


def flat_base(model, tasks, batch):
    twin = copy.deepcopy(model)
    values, _ = losses_of(twin, tasks_like(twin, tasks), batch)
    return flat(torch.log(values + 1e-8).sum(), [*twin.parameters()])


def state(model):
    return {k: v for k, v in model.state_dict().items() if "running" in k}


def test_finite_differences():
    """Of the whole objective by every parameter, through backbone and heads."""
    model, tasks, batch = smooth(3, 2, 4, 4, norm=True)
    balancer = rep_mtl()
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    found = grads(model.parameters())

    def objective():
        values, first, second = terms(model, tasks, batch)
        return float(values.detach().sum() + 0.9 * first.detach() + 0.9 * second.detach())

    parameters = [*model.parameters()]
    for seed in range(4):
        direction = normal(len(found), seed=seed)
        parts = direction.split([p.numel() for p in parameters])
        around = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for p, part in zip(parameters, parts, strict=True):
                    p += step * part.view_as(p)
            around.append(objective())
        with torch.no_grad():
            for p, part in zip(parameters, parts, strict=True):
                p += 1e-6 * part.view_as(p)
        assert float(found @ direction) == pytest.approx((around[0] - around[1]) / 2e-6, rel=1e-4)


class Once(torch.autograd.Function):
    """Identity that counts its backward passes and cannot be differentiated twice."""

    passes = 0

    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        assert not torch.is_grad_enabled()
        Once.passes += 1
        return gradient


class Counted(nn.Module):
    def forward(self, inputs):
        return Once.apply(inputs)


@pytest.mark.parametrize(
    ("combine", "level"),
    [
        (EqualWeighting(), "parameters"),
        (UncertaintyWeighting(3), "parameters"),
        (PCGradWeighting(seed=1), "representation"),
        (GradDrop(seed=1), "representation"),
    ],
)
def test_the_backbone_sees_one_ordinary_backward_pass(combine, level):
    model, tasks, batch = smooth(4, 3, 5, 6)
    model.backbone.append(nn.Conv2d(3, 3, 1).double()).append(Counted()).append(nn.Tanh())
    balancer = Balancer(combine, level=level, transforms=[Log()], regularizers=[TSR(), CSA()])
    Once.passes = 0
    step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
    step.observed = True
    balancer.backward(step)
    assert Once.passes == 1


@pytest.mark.parametrize("level", ["parameters", "representation"])
def test_terms_are_added_after_a_combination(level):
    model, tasks, batch = smooth(4, 3, 5, 6)
    combine = PCGradWeighting(seed=1)

    def run(balancer):
        model.zero_grad()
        balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
        return grads(model.parameters())

    options = {"transforms": [Log()], "level": level}
    combined = run(Balancer(PCGradWeighting(seed=1), **options))
    found = run(Balancer(combine, **options, regularizers=[TSR(), CSA()]))
    _, first, second = terms(model, tasks, batch)
    expected = combined + flat(0.9 * (first + second), [*model.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_tasks_with_inputs_of_their_own_are_paired_by_position():
    model, tasks, batch = multi_input()
    balancer = rep_mtl()
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    values, first, second = terms(model, tasks, batch, form=lambda s: s[:, :, None])
    expected = flat(values.sum() + 0.9 * (first + second), [*model.parameters()])
    torch.testing.assert_close(grads(model.parameters()), expected)


def test_batches_of_different_size_cannot_be_paired():
    model, tasks, (inputs, targets) = multi_input()
    inputs["b"], targets["b"] = inputs["b"][:4], targets["b"][:4]
    balancer = rep_mtl()
    step = Step.evaluate(model, tasks, (inputs, targets), needs=balancer.needs)
    with pytest.raises(UnsupportedError, match=r"'b': \(4, 4\).*drop_last=True"):
        balancer.backward(step)


def test_several_tensors_and_frozen_backbones_are_refused():
    z = normal(4, 3).requires_grad_()
    losses = {name: (z * (i + 1)).square().mean() for i, name in enumerate("ab")}
    both = dict.fromkeys("ab", (z, z))
    with pytest.raises(UnsupportedError, match=r"one tensor.*Got 2 tensors for task 'a'"):
        TSR()(Step(losses, shared=[z], representation=both))
    with pytest.raises(UnsupportedError, match="pass `representation` to Step"):
        TSR()(Step(losses, shared=[z]))
    model, tasks, batch = problem()
    model.backbone.requires_grad_(False)
    with pytest.raises(UnsupportedError, match="not frozen"):
        TSR()(Step.evaluate(model, tasks, batch))


def test_channels_where_one_says():
    model, tasks, batch = smooth(4, 3, 5, 6)

    def value(**options):
        return float(TSR(**options)(Step.evaluate(model, tasks, batch)).detach())

    assert value(channel_dim=1) == value() == value(channel_dim=-3)
    _, rows, _ = terms(model, tasks, batch, form=lambda s: s.transpose(1, 2).flatten(2))
    assert value(channel_dim=2) == pytest.approx(0.9 * float(rows.detach()))
    with pytest.raises(ConfigError, match="`channel_dim` should be a dimension"):
        value(channel_dim=4)


@pytest.mark.parametrize("combine", [EqualWeighting(), PCGradWeighting(seed=1)])
def test_without_strength_training_is_the_base_to_the_bit(combine):
    def train(regularizers):
        torch.manual_seed(0)
        model, tasks, batch = smooth(4, 3, 5, 6, norm=True)
        balancer = Balancer(copy.deepcopy(combine), transforms=[Log()], regularizers=regularizers)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
            step.observed = True
            balancer.backward(step)
            optimizer.step()
        return model.state_dict()

    plain, found = train([]), train([TSR(strength=0), CSA(strength=0)])
    assert all(torch.equal(plain[k], found[k]) for k in plain)
    changed = train([TSR(), CSA()])
    assert any(not torch.equal(plain[k], changed[k]) for k in plain)
    assert Balancer(regularizers=[TSR(strength=0)]).needs == Needs.LOSSES


def test_detached_saliency_is_logged_and_trains_nothing():
    model, tasks, batch = smooth(4, 3, 5, 6)
    balancer = rep_mtl(detach=True)
    report = balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    torch.testing.assert_close(grads(model.parameters()), flat_base(model, tasks, batch))
    assert report.scalars["regularizer/csa"] > 0


def test_saliency_of_plain_losses():
    model, tasks, batch = smooth(4, 3, 5, 6)
    values = []
    for log in (True, False):
        _, first, _ = terms(model, tasks, batch, log=log)
        found = TSR(log=log, strength=2)(Step.evaluate(model, tasks, batch))
        torch.testing.assert_close(found, 2 * first)
        values.append(float(found.detach()))
    assert values[0] != pytest.approx(values[1], rel=1e-3)


def test_warmup():
    model, tasks, batch = smooth(4, 3, 5, 6)
    part = TSR(warmup_epochs=4)
    values = []
    for epoch in range(6):
        part.on_epoch_start(epoch)
        values.append(float(part(Step.evaluate(model, tasks, batch)).detach()))
    full = float(TSR()(Step.evaluate(model, tasks, batch)).detach())
    assert values == pytest.approx([0, full / 4, full / 2, 3 * full / 4, full, full])


def test_both_terms_share_one_saliency(monkeypatch):
    model, tasks, batch = smooth(4, 3, 5, 6)
    calls = []
    plain = Step._saliency
    monkeypatch.setattr(Step, "_saliency", lambda *a: calls.append(a[1]) or plain(*a))
    balancer = rep_mtl()
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    assert calls == list(NAMES)


def test_norms_at_the_representation():
    model, tasks, batch = smooth(4, 3, 5, 6)
    step = Step.evaluate(model, tasks, batch)
    step.scale, step.observed = 64.0, True
    report = rep_mtl().backward(step)
    losses, where = losses_of(model, tasks, batch)
    z = where["a"][0]
    logs = torch.log(losses + 1e-8)
    saliency = torch.stack([torch.autograd.grad(v, z, create_graph=True)[0] for v in logs])
    expected = {
        "tasks/gradient_norm": saliency.sum(0),
        "tsr/gradient_norm": torch.autograd.grad(
            0.9 * tsr(saliency.flatten(3)), z, retain_graph=True
        )[0],
        "csa/gradient_norm": torch.autograd.grad(0.9 * csa(saliency.flatten(3)), z)[0],
    }
    for name, gradient in expected.items():
        torch.testing.assert_close(report.scalars[name], gradient.norm().detach())
    assert 0 <= report.scalars["csa/positive"] <= 1
    assert 0 <= report.scalars["csa/negative"] <= 1
    assert not any(t.requires_grad for t in report.scalars.values())


def test_a_gradient_that_is_capped():
    model, tasks, batch = smooth(4, 3, 5, 6)

    def run(**options):
        model.zero_grad()
        balancer = Balancer(transforms=[Log()], regularizers=[CSA(**options)])
        step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
        step.observed, step.scale = not options, 64.0
        report = balancer.backward(step)
        return grads(model.parameters()) / 64, report.scalars

    free, scalars = run()
    ratio = float(scalars["csa/gradient_norm"] / scalars["tasks/gradient_norm"])
    capped, small = run(max_ratio=ratio / 4)
    losses = flat_base(model, tasks, batch)
    torch.testing.assert_close(capped - losses, (free - losses) / 4)
    torch.testing.assert_close(small["csa/gradient_norm"], scalars["csa/gradient_norm"] / 4)
    torch.testing.assert_close(small["regularizer/csa"], scalars["regularizer/csa"])
    wide, large = run(max_ratio=ratio * 1.1)
    torch.testing.assert_close(wide, free)
    torch.testing.assert_close(large["csa/gradient_norm"], scalars["csa/gradient_norm"])


def test_similarities_that_are_logged():
    saliency = normal(3, 4, 5, 6)
    z = torch.zeros(4, 5, 6, dtype=torch.float64, requires_grad=True)
    losses = {n: (z * s).sum() for n, s in zip(NAMES, saliency, strict=True)}
    step = Step(losses, shared=[z], representation=dict.fromkeys(NAMES, (z,)))
    CSA(log=False, channel_dim=1)(step)
    maps = torch.nn.functional.normalize((saliency @ saliency.mT).flatten(2), dim=2)
    columns = saliency.mean(3).permute(1, 2, 0)
    anchors = torch.nn.functional.normalize((columns @ columns.mT).flatten(1), dim=1)
    cosines = anchors @ anchors.T
    off = cosines[~torch.eye(4, dtype=torch.bool)].mean()
    torch.testing.assert_close(step.scalars["csa/negative"], off)
    positive = torch.einsum("bn,tbn->tb", anchors, maps).mean()
    torch.testing.assert_close(step.scalars["csa/positive"], positive)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_representations(dtype, scale):
    """64 samples with 2048 channels: the gradients are near 1e-6, their squares are nowhere."""
    torch.manual_seed(0)
    features = torch.randn(64, 2048).relu().to(dtype)
    heads = [torch.randn(2048, 5).div(45).to(dtype) for _ in range(2)]
    targets = [torch.randint(0, 5, (64,)) for _ in heads]

    def values(kind, scale):
        z = features.to(kind).requires_grad_()
        losses = {
            f"t{i}": CrossEntropy()(z @ w.to(kind), y)
            for i, (w, y) in enumerate(zip(heads, targets, strict=True))
        }
        representation = dict.fromkeys(losses, (z,))
        step = Step(losses, shared=[z], representation=representation, scale=scale)
        found = torch.stack([TSR()(step), CSA()(step)])
        (gradient,) = torch.autograd.grad(found.sum(), z)
        assert gradient.isfinite().all()
        assert gradient.any()
        return found.double()

    torch.testing.assert_close(
        values(dtype, scale), values(torch.float64, 1.0), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", [TSR, CSA])
def test_one_sample_and_one_task(kind):
    model, tasks, (inputs, targets) = smooth(1, 3, 5, 6)
    one = inputs, {"a": targets["a"]}
    balancer = Balancer(regularizers=[kind()], on_nonfinite="raise")
    report = balancer.backward(Step.evaluate(model, tasks, one, needs=balancer.needs))
    assert report.scalars[f"regularizer/{kind.__name__.lower()}"] == 0


def test_a_negative_loss_has_no_logarithm():
    model, tasks, batch = problem()
    model_losses = Step.evaluate(model, tasks, batch)
    losses = {name: loss - 1e6 for name, loss in model_losses.losses.items()}
    step = Step(losses, shared=model_losses.shared, representation=model_losses.representation)
    report = Balancer(regularizers=[TSR()]).backward(step)
    assert report.nonfinite == NAMES


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TSR(strength=-1), "`strength` should be 0 or more. Got -1"),
        (lambda: CSA(log_eps=-1e-8), "`log_eps`"),
        (lambda: CSA(warmup_epochs=-1), "`warmup_epochs`"),
        (lambda: CSA(max_ratio=0), "`max_ratio` should be positive, or null. Got 0"),
        (lambda: TSR(channel_dim=0), "`channel_dim`"),
        (lambda: TSR(channel_mean="abs"), "`channel_mean` should be one of.*'abs'"),
        (lambda: TSR(eps=0), "`eps` should be positive"),
        (lambda: CSA(temperature=0), "`temperature` should be positive"),
        (lambda: CSA(negatives="all"), "`negatives` should be one of"),
        (lambda: CSA(over_tasks="max"), "`over_tasks` should be one of"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
