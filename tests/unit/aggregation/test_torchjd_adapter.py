"""TorchJD's aggregators and weightings in a balancer, as they are."""

import copy

import pytest
import torch

from mtl import Balancer, Step
from mtl.aggregation import MGDAWeighting, TorchJDAggregator, TorchJDWeighting, adapt
from mtl.parts import Needs
from tests.support import VARIANTS, make_balancer
from tests.unit.core.toy import flat, losses_of, normal, problem

library = pytest.importorskip("torchjd.aggregation")

GRAMIAN = {
    "AlignedMTL": {}, "GradVac": {}, "IMTLG": {}, "Krum": {"n_byzantine": 0, "n_selected": 1},
    "MGDA": {}, "PCGrad": {}, "PCD": {},
}  # fmt: skip
JACOBIAN = {"ConFIG": {}, "GradDrop": {}, "Mean": {}, "Sum": {}, "Random": {},
            "TrimmedMean": {"trim_number": 1}}  # fmt: skip
OPTIONAL = ["UPGrad", "DualProj", "CAGrad", "FairGrad"]


def made(name, options):
    try:
        return getattr(library, name)(**options)
    except ImportError as error:  # its own optional dependencies
        pytest.skip(str(error))


def trunk_gradient(balancer, model, tasks, batch):
    model.zero_grad()
    report = balancer.backward(Step.evaluate(model, tasks, batch))
    return report, torch.cat([p.grad.flatten() for p in model.backbone.parameters()])


def jacobian():
    model, tasks, batch = problem()
    losses, _ = losses_of(model, tasks, batch)
    return torch.stack([flat(loss, list(model.backbone.parameters())) for loss in losses])


@pytest.mark.parametrize("name", [*GRAMIAN, *JACOBIAN, *OPTIONAL])
def test_aggregators_give_what_they_give_alone(name):
    options = {**GRAMIAN, **JACOBIAN}.get(name, {"c": 0.5} if name == "CAGrad" else {})
    if name == "FairGrad":
        options = {"alpha": 1.0}
    try:
        balancer = Balancer(made(name, options))
    except TypeError as error:
        pytest.skip(f"other arguments in this version: {error}")
    gramian = name in GRAMIAN or name in OPTIONAL
    assert isinstance(balancer.combine, TorchJDWeighting if gramian else TorchJDAggregator)
    assert balancer.needs == (Needs.GRAMIAN if gramian else Needs.JACOBIAN)
    twin = copy.deepcopy(balancer.combine)
    report, found = trunk_gradient(balancer, *problem())
    reference, rows = made(name, options), jacobian()
    with twin.draws_of_its_own(rows):
        expected = reference(rows)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert (report.weights is not None) == gramian


def test_weightings_see_the_gramian():
    gram = jacobian() @ jacobian().T
    for kind in (library.MGDAWeighting, library.IMTLGWeighting, library.MeanWeighting):
        part = adapt(kind())
        assert isinstance(part, TorchJDWeighting)
        torch.testing.assert_close(part(gram), kind()(gram).to(gram))


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
