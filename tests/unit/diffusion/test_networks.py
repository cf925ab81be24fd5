"""Networks, routing, and that splitting a batch changes nothing."""

import pytest
import torch
from torch import nn

from mtl import Balancer, MTLModule, MultiTaskModel, Step, Task
from mtl.aggregation import Every, NashMTLWeighting
from mtl.diffusion import (
    Denoiser,
    DenoisingUNet,
    Diffusion,
    DiT,
    Intervals,
    NoiseError,
    Noisy,
    ResidualMLP,
    Routing,
)
from mtl.diffusion.routing import Routes
from mtl.errors import ConfigError
from mtl.scalarization import UncertaintyWeighting
from mtl.transforms import IntervalClustering

NETWORKS = {
    "mlp": lambda **o: ResidualMLP(64, width=16, **o),
    "unet": lambda **o: DenoisingUNet(width=8, **o),
    "dit": lambda **o: DiT(size=8, width=16, depth=2, heads=2, **o),
}


def make(name, seed=0, **options):
    """A network whose zero layers are not zero."""
    torch.manual_seed(seed)
    network = NETWORKS[name](**options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def batch(size=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, 1, 8, 8, generator=g),
        torch.randint(1000, (size,), generator=g),
        torch.randint(10, (size,), generator=g),
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("routing", [None, "dtr", "random"])
def test_samples_do_not_depend_on_each_other(name, routing):
    network = make(name, num_classes=10, routing=routing)
    x, t, label = batch()
    whole = network(x, t, label)
    assert whole.shape == x.shape
    parts = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_time_and_class_matter(name):
    network = make(name, num_classes=10)
    x, t, label = batch()
    out = network(x, t, label)
    assert not torch.allclose(out, network(x, (t + 100) % 1000, label))
    assert not torch.allclose(out, network(x, t, torch.full_like(label, 10)))
    plain = make(name)
    assert torch.equal(plain(x, t, label), plain(x, t, torch.zeros_like(label)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_network_predicts_zero(name):
    """The last layer starts at zero; blocks start as the identity."""
    x, t, label = batch()
    assert not NETWORKS[name]()(x, t, label).any()


def test_dit_blocks_start_as_the_identity():
    network = DiT(size=8, width=16, depth=2, heads=2)
    z = torch.randn(3, 4, 16)
    for block in network.blocks:
        assert not block(z, torch.randn(3, 16)).any()


@pytest.mark.parametrize("sizes", [{"size": 9}, {"width": 30}, {"heads": 5}])
def test_dit_sizes_that_do_not_divide(sizes):
    with pytest.raises(ConfigError, match="multiple"):
        DiT(**{"size": 8, "width": 16, "heads": 2, **sizes})


# --------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize(
    ("channels", "alpha", "beta"), [(64, 4, 0.8), (100, 1, 0.29), (7, 0.5, 0.5)]
)
def test_mask_counts(channels, alpha, beta):
    timesteps = 300
    masks = Routing("dtr", channels, timesteps, alpha=alpha, beta=beta)(torch.arange(timesteps))
    active = round(beta * channels)
    assert bool((masks.sum(1) == active).all())
    starts = masks.int().argmax(1)
    assert starts[0] == 0
    assert starts[-1] == channels - active
    assert bool((starts.diff() >= 0).all())
    expected = ((channels - active) * (torch.arange(timesteps) / (timesteps - 1)) ** alpha).round()
    assert (starts - expected).abs().max() <= 1
    if alpha == 1:
        assert starts.diff().max() <= 1
    shared = (masks[0] & masks).sum(1)
    assert bool((shared.diff() <= 0).all())  # the further in time, the fewer in common


def test_reference_masks():
    """Starts and numbers of channels that were measured for C = 1024."""
    masks = Routing("dtr", 1024, 1000)(torch.arange(1000))
    starts = masks.int().argmax(1)
    assert starts[[0, 200, 400, 600, 800, 999]].tolist() == [0, 0, 5, 27, 84, 205]
    assert len(masks.unique(dim=0)) == 206
    assert int(masks.all(0).sum()) == 614
    assert len(Routing("dtr", 64, 1000)(torch.arange(1000)).unique(dim=0)) == 14


def test_random_routing_is_the_control():
    masks = Routing("random", 40, 200, seed=1)(torch.arange(200))
    assert bool((masks.sum(1) == 32).all())
    assert len(masks.unique(dim=0)) > 190
    again = Routing("random", 40, 200, seed=1)(torch.arange(200))
    assert torch.equal(masks, again)
    routes = Routes("random", [40, 40], 200)
    first, second = routes(torch.arange(200), torch.zeros(1))
    assert not torch.equal(first, second)  # another one in every block


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("routing", ["dtr", "random"])
def test_beta_one_is_the_base_to_the_bit(name, routing):
    base, routed = make(name), make(name, routing=routing, beta=1.0)
    assert torch.equal(base(*batch()), routed(*batch()))


@pytest.mark.parametrize("name", NETWORKS)
def test_routing_adds_no_state(name):
    base, routed = make(name), make(name, seed=1, routing="dtr")
    assert sum(p.numel() for p in base.parameters()) == sum(p.numel() for p in routed.parameters())
    base.load_state_dict(routed.state_dict())
    assert not torch.allclose(base(*batch()), routed(*batch()))


@pytest.mark.parametrize("name", ["mlp", "dit"])
def test_masked_channels_are_not_read_by_the_block(name):
    network = make(name, routing="dtr", beta=0.5)
    mask = network.routes(torch.tensor([0]), torch.zeros(1))[0]
    z = torch.randn(1, 16) if name == "mlp" else torch.randn(1, 4, 16)
    wide = mask if name == "mlp" else mask[:, None]
    condition = torch.randn(1, 16)

    def update(value):
        return network.blocks[0](wide * value, condition)

    change = torch.zeros_like(z)
    change[..., mask[0] == 0] = 1.0
    assert torch.equal(update(z), update(z + change))
    assert not torch.allclose(update(z), update(z + 1))
    assert bool((update(z).abs() > 0).all())  # all channels are written


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"beta": 0.0}, {"beta": 1.5}, {"beta": 0.01}])
def test_wrong_routing(options):
    with pytest.raises(ConfigError, match="alpha"):
        Routing("dtr", 16, 100, **options)
    with pytest.raises(ConfigError, match="dtr, random"):
        ResidualMLP(2, routing="dtrr")


# ---------------------------------------------------------------------------- splitting the batch


def denoising_tasks(name, count=4):
    intervals = Intervals(1000, count)
    model = Denoiser(make(name), Diffusion(loss_weights="min_snr"))
    tasks = [Task(task, nn.Identity(), NoiseError()) for task in intervals.names]
    return MultiTaskModel(model, tasks), tasks, intervals


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_of_a_batch_give_the_gradients_of_the_whole(name):
    model, tasks, intervals = denoising_tasks(name)
    diffusion = model.backbone.diffusion
    x, _, label = batch(16)
    t = intervals.draw(16, [[n] for n in intervals.names], torch.Generator().manual_seed(0))
    eps = torch.randn_like(x)
    gain = diffusion.gain[t]
    noisy = Noisy(diffusion.add_noise(x, t, eps), t, label, gain)
    data = intervals.by_task(noisy, gain[:, None, None, None] * eps)
    names = intervals.names
    found = []
    for together in (None, [names], [names[:2], names[2:]]):
        step = Step.evaluate(model, tasks, data, together=together)
        found.append((step.values, step.rows().jacobian))
    # By hand: weighted squared errors of eps, one task after the other.
    for i in range(len(names)):
        rows = slice(4 * i, 4 * i + 4)
        error = (model.backbone.predict(noisy.x[rows], t[rows], label[rows]) - eps[rows]).square()
        loss = (diffusion.weights()[t[rows]] * error.flatten(1).mean(1)).mean()
        torch.testing.assert_close(found[0][0][i], loss.detach())
    for values, jacobian in found[1:]:
        torch.testing.assert_close(values, found[0][0])
        torch.testing.assert_close(jacobian, found[0][1], rtol=1e-4, atol=1e-5)


def test_a_group_is_one_evaluation_of_the_backbone():
    model, tasks, intervals = denoising_tasks("mlp")
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0].t)))
    x, _, label = batch(16)
    t = intervals.draw(16, [[n] for n in intervals.names], torch.Generator().manual_seed(0))
    data = intervals.by_task(Noisy(x, t, label, torch.ones(16)), x)
    names = intervals.names
    for together, expected in (
        (None, [4, 4, 4, 4]),
        ([names], [16]),
        ([names[:1], names[1:]], [4, 12]),
    ):
        sizes.clear()
        Step.evaluate(model, tasks, data, together=together)
        assert sizes == expected


def test_a_batch_is_split_only_where_gradients_are_compared():
    names = list("abcd")
    clusters = IntervalClustering(4, k=2)
    halves, whole = [["a", "b"], ["c", "d"]], [names]
    every = Every(NashMTLWeighting(), 2, every=3)
    for combine, expected in (
        (UncertaintyWeighting(2), [whole] * 6),
        (NashMTLWeighting(), [halves] * 6),
        (every, [halves, whole, whole] * 2),
    ):
        balancer = Balancer(combine, transforms=[clusters])
        found = []
        for _ in range(6):
            found.append(balancer.together(names))
            shared = torch.randn(3, requires_grad=True)
            losses = {name: (shared - i).square().sum() for i, name in enumerate(names)}
            balancer.backward(Step(losses, shared=[shared]))
        assert found == expected


def test_one_loss_object_is_evaluated_once_a_group():
    model, tasks, intervals = denoising_tasks("mlp")
    names, calls = intervals.names, []

    class Noted(NoiseError):
        def each(self, predictions, targets):
            calls.append(len(targets))
            return super().each(predictions, targets)

    x, _, label = batch(18)
    t = intervals.draw(18, [[n] for n in names], torch.Generator().manual_seed(0))
    data = intervals.by_task(Noisy(x, t, label, torch.ones(18)), torch.randn_like(x))
    shared = Noted()
    family = [Task(task.name, nn.Identity(), shared) for task in tasks]
    for together, expected in ((None, [1] * 4), ([names], [4]), ([names[:3], names[3:]], [3, 1])):
        calls.clear()
        once = Step.evaluate(model, family, data, together=together)
        assert calls == expected
        alone = Step.evaluate(model, tasks, data, together=together)
        torch.testing.assert_close(once.values, alone.values)
        torch.testing.assert_close(once.rows().jacobian, alone.rows().jacobian)
        assert all(torch.equal(once._counts[n], alone._counts[n]) for n in names)


def test_a_family_with_an_empty_task():
    predictions = [torch.randn(3, 2, requires_grad=True), torch.zeros(0, 2, requires_grad=True)]
    targets = [torch.randn(3, 2), torch.zeros(0, 2)]
    (first, count), (second, none) = NoiseError().each(predictions, targets)
    torch.testing.assert_close(first, (predictions[0] - targets[0]).square().mean())
    assert (second.item(), count.item(), none.item()) == (0.0, 3, 0)


def test_models_with_batch_statistics_are_not_joined():
    model = MultiTaskModel(nn.BatchNorm1d(3), {"a": nn.Identity(), "b": nn.Identity()})
    inputs = {"a": torch.randn(5, 3), "b": 4 + torch.randn(5, 3)}
    joined = model(inputs, [["a", "b"]]).predictions
    for value in joined.values():
        torch.testing.assert_close(value.mean(0), torch.zeros(3), atol=1e-6, rtol=0)


def test_a_model_of_ones_own_needs_no_second_argument():
    class Own(MultiTaskModel):
        joins = False

        def forward(self, inputs):
            return super().forward(inputs)

    model = Own(nn.Linear(2, 2), {"a": nn.Identity()})
    tasks = [Task("a", nn.Identity(), nn.MSELoss())]
    step = Step.evaluate(
        model, tasks, (torch.ones(2, 2), {"a": torch.ones(2, 2)}), together=[["a"]]
    )
    assert step.present == ("a",)
    assert MTLModule(model, tasks)(torch.ones(1, 2))["a"].shape == (1, 2)
