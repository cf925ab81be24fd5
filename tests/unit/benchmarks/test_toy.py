"""The toy problems, and what methods reach on them."""

import pytest
import torch

from benchmarks.toy import PROBLEMS, descend
from mtl import Balancer
from mtl.aggregation import MGDAWeighting, NashMTLWeighting, UPGradWeighting
from scripts.toy import main


def stationarity(problem, point):
    """Norm of the shortest convex combination of the two normalised gradients."""
    point = point.clone().requires_grad_()
    first, second = (
        torch.autograd.grad(loss, point, retain_graph=True)[0] for loss in problem.losses(point)
    )
    first, second = first / first.norm(), second / second.norm()
    return float((first + second).norm() / 2)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_front_is_pareto_stationary(name):
    problem = PROBLEMS[name]
    for point in problem.front[5:-5:20]:
        assert stationarity(problem, point) < 0.08


@pytest.mark.parametrize("combine", [MGDAWeighting, NashMTLWeighting, UPGradWeighting])
@pytest.mark.parametrize("start", PROBLEMS["quadratics"].starts)
def test_non_conflicting_methods_reach_the_front_of_quadratics(combine, start):
    problem = PROBLEMS["quadratics"]
    path = descend(problem, Balancer(combine()), start, steps=600, learning_rate=0.05, decay=True)
    x, y = path[-1].tolist()
    assert -1.02 <= x <= 1.02
    assert abs(y) < 0.02


@pytest.mark.parametrize("start", PROBLEMS["surface"].starts)
def test_nash_mtl_reaches_the_front_of_the_surface_from_everywhere(start):
    """The paper's toy figure: many others stop in the valleys or at an end of the front."""
    problem = PROBLEMS["surface"]
    path = descend(
        problem, Balancer(NashMTLWeighting()), start, steps=1500, learning_rate=0.04, decay=True
    )
    assert stationarity(problem, path[-1]) < 0.02
    assert abs(float(path[-1][1]) + 8.35) < 0.2


def test_equal_weighting_does_not():
    problem = PROBLEMS["surface"]
    start = problem.starts[0]
    path = descend(problem, Balancer(), start, steps=1500, learning_rate=0.01, decay=True)
    assert float(path[-1][1]) > -7.5


def test_the_picture(tmp_path, capsys):
    out = tmp_path / "toy.png"
    assert main(["--methods", "ew,gls", "--steps", "3", "--out", str(out)]) == 0
    assert out.stat().st_size > 10_000
    assert "2 methods" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--methods", "eww"])
    assert "unknown method(s) ['eww']" in capsys.readouterr().err
