"""What the presets' combiners converge to on clusters; the loop of the documentation."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from mtl import Balancer, Step
from mtl.aggregation import NashMTLWeighting, PCGradWeighting
from mtl.transforms import IntervalClustering
from tests.support import ROOT, make_balancer


def losses_at(p, factors=(1, 1, 1, 1)):
    return {f"t{i}": f * (p - i).square().sum() / 10**i for i, f in enumerate(factors)}


def uncertain():
    return make_balancer("ant", num_tasks=4).double()


@pytest.mark.parametrize("factors", [(1, 1, 1, 1), (10, 10, 1, 1)], ids=str)
def test_uncertainty_weighting_minimizes_the_sum_of_log_losses(factors):
    """At `s = log L` the gradient is half the sum of `grad L / L`, whatever the scale of a loss."""
    p = nn.Parameter(torch.randn(3, dtype=torch.float64))
    balancer = uncertain()
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.1)
    assert balancer.parameter_groups()[0]["lr"] == 0.025
    for _ in range(900):
        optimizer.zero_grad()
        balancer.backward(Step(losses_at(p, factors), shared=[p]))
        optimizer.step()
    clusters = balancer.transforms["interval_clusters"](
        torch.stack(list(losses_at(p, factors).values()))
    )
    torch.testing.assert_close(balancer.combine.log_variance, clusters.log(), atol=1e-4, rtol=0)
    p.grad = None
    balancer.backward(Step(losses_at(p, factors), shared=[p]))
    plain = torch.stack(list(losses_at(p).values()))
    pairs = torch.stack([plain[:2].mean(), plain[2:].mean()])
    (expected,) = torch.autograd.grad(0.5 * pairs.log().sum(), p)
    torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-8)


def rows(p):
    losses = torch.stack(list(losses_at(p).values()))
    return torch.stack(
        [torch.autograd.grad(losses[i : i + 2].mean(), p, retain_graph=True)[0] for i in (0, 2)]
    )


def test_nash_on_clusters():
    p = nn.Parameter(torch.randn(3, dtype=torch.float64))
    balancer = Balancer(NashMTLWeighting(max_norm=None), transforms=[IntervalClustering(4, 2)])
    report = balancer.backward(Step(losses_at(p), shared=[p]))
    jacobian = rows(p)
    weights = 2 * report.weights[::2]  # half of a cluster's weight is each task's
    torch.testing.assert_close(weights * (jacobian @ jacobian.T @ weights), torch.ones(2).double())
    torch.testing.assert_close(p.grad, weights @ jacobian)
    assert float(p.grad.square().sum()) == pytest.approx(2)


def test_nash_of_orthogonal_gradients():
    weighting = NashMTLWeighting(max_norm=None)
    norms = torch.tensor([4.0, 9.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(weighting(norms.diag()), norms.rsqrt())
    order = [2, 0, 1]
    gram = torch.tensor([[2.0, 0.3, -0.1], [0.3, 1.0, 0.2], [-0.1, 0.2, 5.0]], dtype=torch.float64)
    permuted = weighting(gram[order][:, order])
    torch.testing.assert_close(permuted, weighting(gram)[order])


def test_ant_nash_solves_every_25_steps():
    p = nn.Parameter(torch.randn(3, dtype=torch.float64))
    balancer = make_balancer("ant_nash", num_tasks=4).double()
    optimizer = torch.optim.SGD([p], lr=0.05)
    weights = []
    for _ in range(52):
        optimizer.zero_grad()
        weights.append(balancer.backward(Step(losses_at(p), shared=[p])).weights)
        optimizer.step()
    changes = [i for i in range(1, 52) if not torch.equal(weights[i], weights[i - 1])]
    assert changes == [25, 50]


def test_pcgrad_on_clusters_leaves_no_conflict():
    p = nn.Parameter(torch.tensor([1.0, 2.2, 1.4], dtype=torch.float64))
    jacobian = rows(p)
    assert float(jacobian[0] @ jacobian[1]) < 0
    balancer = Balancer(PCGradWeighting(seed=0), transforms=[IntervalClustering(4, 2)])
    balancer.backward(Step(losses_at(p), shared=[p]))
    assert bool((jacobian @ p.grad >= -1e-12).all())
    aligned = nn.Parameter(torch.full((3,), 9.0, dtype=torch.float64))
    balancer.backward(Step(losses_at(aligned), shared=[aligned]))
    np.testing.assert_allclose(aligned.grad, rows(aligned).sum(0))


def test_the_loop_of_the_documentation():
    text = (ROOT / "docs" / "diffusion.md").read_text()
    code = re.search(r"<!-- test: loop -->\n```python\n(.*?)```", text, re.DOTALL)[1]
    names = {}
    exec(code, names)
    assert len(names["step"].present) == 20
    assert names["balancer"].together(names["names"])[0] == names["names"][:4]
    assert all(p.grad.isfinite().all() for p in names["model"].parameters())
