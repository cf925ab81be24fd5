"""TorchJD's aggregators and weightings in a balancer, as they are."""

import copy

import pytest
import torch
import torchjd.aggregation as library
from torchjd.linalg import Matrix, PSDMatrix

from mtl import Balancer, Step
from mtl.aggregation import EMA, MGDAWeighting, TorchJDAggregator, TorchJDWeighting, adapt
from mtl.errors import ConfigError
from mtl.parts import Needs
from tests.support import VARIANTS, make_balancer
from tests.unit.core.toy import flat, losses_of, normal, problem

PREFERENCE = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)


def smoothed(inner):
    return {"weighting": getattr(library, f"{inner}Weighting")()}


# Everything public that can be made, with what its constructor needs for three tasks.
GRAMIAN = {
    "AlignedMTL": {}, "CAGrad": {"c": 0.5}, "DualProj": {}, "FairGrad": {"alpha": 1.0},
    "GradVac": {}, "IMTLG": {}, "Krum": {"n_byzantine": 0, "n_selected": 1}, "MGDA": {},
    "PCD": {}, "PCGrad": {}, "UPGrad": {},
}  # fmt: skip
GRAMIAN |= {f"{name}Weighting": options for name, options in GRAMIAN.items()}
JACOBIAN = {
    "Constant": {"weights": PREFERENCE}, "ExcessMTL": {}, "Mean": {}, "Random": {}, "Sum": {},
}  # fmt: skip
JACOBIAN |= {f"{name}Weighting": options for name, options in JACOBIAN.items()}
JACOBIAN |= {"ConFIG": {}, "GradDrop": {}, "NashMTL": {"n_tasks": 3}}
JACOBIAN |= {"TrimmedMean": {"trim_number": 1}}
# Products of gradients of two batches; here of one.
GRAMIAN |= {"MoDoWeighting": {"rho": 0.0}, "SDMGradWeighting": {}}
# Those that take something that can be weighed.
WRAPPERS = {
    "CRMOGMWeighting of MGDA": GRAMIAN, "CRMOGMWeighting of SDMGrad": GRAMIAN,
    "CRMOGMWeighting of ExcessMTL": JACOBIAN, "CRMOGMWeighting of Mean": JACOBIAN,
    "GramianWeightedAggregator of UPGrad": GRAMIAN, "WeightedAggregator of ExcessMTL": JACOBIAN,
}  # fmt: skip
for name, group in WRAPPERS.items():
    group[name] = smoothed(name.split()[-1])
    if name.startswith("Gramian"):
        group[name] = {"gramian_weighting": group[name]["weighting"]}
ABSTRACT = {"Aggregator", "Weighting"}
ALL = [*GRAMIAN, *JACOBIAN]


def made(name):
    options = copy.deepcopy({**GRAMIAN, **JACOBIAN}[name])
    return getattr(library, name.split()[0])(**options)


def alone(name):
    """What TorchJD itself makes an aggregator of."""
    part = made(name)
    if isinstance(part, library.Aggregator):
        return part
    return (library.GramianWeightedAggregator if name in GRAMIAN else library.WeightedAggregator)(
        part
    )


def trunk_gradient(balancer, model, tasks, batch):
    model.zero_grad()
    report = balancer.backward(Step.evaluate(model, tasks, batch))
    return report, torch.cat([p.grad.flatten() for p in model.backbone.parameters()])


def jacobian(seed=0):
    model, tasks, batch = problem(seed=seed)
    losses, _ = losses_of(model, tasks, batch)
    return torch.stack([flat(loss, list(model.backbone.parameters())) for loss in losses])


def test_all_of_torchjd_is_here():
    assert {name.split()[0] for name in ALL} | ABSTRACT == set(library.__all__)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")  # of NashMTL
@pytest.mark.parametrize("name", ALL)
def test_they_give_what_they_give_alone(name):
    """For three steps: several have a state."""
    balancer, reference = Balancer(made(name)), alone(name)
    gramian = name in GRAMIAN
    assert isinstance(balancer.combine, TorchJDWeighting if gramian else TorchJDAggregator)
    assert balancer.needs == (Needs.GRAMIAN if gramian else Needs.JACOBIAN)
    twin = copy.deepcopy(balancer.combine)
    for seed in range(3):
        report, found = trunk_gradient(balancer, *problem(seed=seed))
        rows = jacobian(seed)
        with twin.draws_of_its_own(rows):
            expected = reference(rows)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        assert (report.weights is not None) == gramian


@pytest.mark.parametrize("name", ["ExcessMTLWeighting", "CRMOGMWeighting of ExcessMTL", "NashMTL"])
def test_what_looks_at_the_jacobian_is_no_weighting_for_modifiers(name):
    with pytest.raises(ConfigError, match="should be a Weighting"):
        EMA(made(name), 3)


def test_a_weighting_of_ones_own_sees_what_it_declares():
    class OfGramian(library.Weighting[PSDMatrix]):
        def forward(self, gramian, /):
            return gramian.diagonal()

    class OfMatrix(library.Weighting[Matrix]):
        def forward(self, matrix, /):
            return matrix.square().sum(1)

    class Derived(OfGramian):
        pass

    rows = jacobian()
    for kind in (OfGramian, Derived):
        part = adapt(kind())
        assert isinstance(part, TorchJDWeighting)
        torch.testing.assert_close(part(rows @ rows.T) @ rows, adapt(OfMatrix())(rows))


def test_everything_else_is_left_alone():
    own = MGDAWeighting()
    assert adapt(own) is own
    assert adapt(None) is None
    assert adapt(MGDAWeighting) is MGDAWeighting


def test_random_draws_are_fixed_by_the_seed_and_local():
    rows = normal(4, 20)
    state = torch.get_rng_state()
    first = TorchJDAggregator(library.GradDrop(), seed=3)
    draws = [first(rows) for _ in range(4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(draws[0], draws[1])
    second = TorchJDAggregator(library.GradDrop(), seed=3)
    assert all(torch.equal(second(rows), draw) for draw in draws)


def test_draws_continue_from_a_saved_state():
    rows = normal(4, 20)
    old = TorchJDAggregator(library.GradDrop(), seed=3)
    old(rows)
    fresh = TorchJDAggregator(library.GradDrop(), seed=8)
    fresh.load_state_dict(copy.deepcopy(old.state_dict()))
    assert torch.equal(old(rows), fresh(rows))


def test_the_state_of_a_stateful_one_loads():
    """TorchJD alone refuses: its buffers are None until the first call."""
    rows = normal(3, 20)
    old = TorchJDWeighting(library.CRMOGMWeighting(library.MGDAWeighting()), seed=0)
    for scale in (1.0, 0.1, 3.0):
        gram = rows * torch.tensor([[1.0], [scale], [1.0]])
        old(gram @ gram.T)
    fresh = TorchJDWeighting(library.CRMOGMWeighting(library.MGDAWeighting()), seed=0)
    fresh.load_state_dict(copy.deepcopy(old.state_dict()))
    assert torch.equal(old(rows @ rows.T), fresh(rows @ rows.T))


def test_from_the_command_line():
    assert any("torchjd" in " ".join(overrides) for overrides in VARIANTS.values())
    assert isinstance(make_balancer("pcgrad of torchjd").combine, TorchJDWeighting)
    assert isinstance(make_balancer("graddrop of torchjd").combine, TorchJDAggregator)
