"""The toy problems, and what methods reach on them."""

import pytest
import torch

from benchmarks.toy import PROBLEMS, descend
from mtl import Balancer
from mtl.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    ConFIGWeighting,
    DualProjWeighting,
    FairGradWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    NashMTLWeighting,
    PCGradWeighting,
    SDMGradWeighting,
    UPGradWeighting,
)
from mtl.scalarization import EqualWeighting
from scripts import toy
from scripts.toy import MANY, NETWORK, main
from tests.support import PRESETS


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


def reached(name, combine, start, *, seed=0):
    """Where a method ends."""
    torch.manual_seed(seed)
    balancer = Balancer(CONVERGING.get(combine, combine)())
    return descend(PROBLEMS[name], balancer, start, steps=600, learning_rate=0.15, decay=True)[-1]


# Those of which the papers show that they converge to Pareto stationary points. MoCo is left out:
# its weights move too slowly for so few steps at its default rates.
CONVERGING = {
    "aligned_mtl": AlignedMTLWeighting,
    "cagrad": CAGradWeighting,
    "config": ConFIGWeighting,
    "dualproj": DualProjWeighting,
    "fairgrad": FairGradWeighting,
    "imtl_g": IMTLGWeighting,
    "mgda": MGDAWeighting,
    "nash_mtl": NashMTLWeighting,
    "pcgrad": PCGradWeighting,
    "sdmgrad": SDMGradWeighting,
    "upgrad": UPGradWeighting,
}


@pytest.mark.parametrize("name", CONVERGING)
def test_the_front_of_quadratics_is_reached(name):
    x, y = reached("quadratics", name, PROBLEMS["quadratics"].starts[0]).tolist()
    assert -1.02 <= x <= 1.02
    assert abs(y) < 0.02


@pytest.mark.parametrize("name", CONVERGING)
def test_the_front_of_the_surface_is_reached(name):
    """The papers' toy figure, from the start that is hardest for most."""
    point = reached("surface", name, PROBLEMS["surface"].starts[2])
    assert stationarity(PROBLEMS["surface"], point) < 0.05
    assert abs(float(point[1]) + 8.35) < 0.3


@pytest.mark.parametrize("start", PROBLEMS["unequal"].starts[::2])
def test_a_loss_that_counts_ten_times_as_much(start):
    """The sum ends where the larger loss is least, Nash-MTL where it ends for equal ones."""
    assert float(reached("unequal", EqualWeighting, start)[0]) < -5.5
    nash = reached("unequal", "nash_mtl", start)
    torch.testing.assert_close(nash, reached("surface", "nash_mtl", start), rtol=0, atol=0.05)
    assert float(nash[0]) > -5.5


def test_the_picture(tmp_path, capsys):
    out = tmp_path / "toy.png"
    assert main(["--methods", "ew,gls", "--steps", "3", "--out", str(out)]) == 0
    assert out.stat().st_size > 10_000
    assert "2 methods" in capsys.readouterr().out


@pytest.mark.slow
def test_all_methods_that_are_drawn_by_default(tmp_path, capsys):
    assert main(["--steps", "1", "--out", str(tmp_path / "toy.png")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # none was left out
    assert f"{len(PRESETS) - len(NETWORK) - len(MANY)} methods" in printed.out
    assert {*NETWORK, *MANY} < {*PRESETS}


@pytest.mark.parametrize(
    ("methods", "message"),
    [("eww", r"unknown method(s) ['eww']"), ("ew,stl", "['stl'] are about the network")],
)
def test_methods_that_cannot_be_drawn(methods, message, capsys):
    with pytest.raises(SystemExit):
        main(["--methods", methods])
    assert message in capsys.readouterr().err


def test_a_preset_that_cannot_be_made_is_left_out_with_its_reason(tmp_path, capsys, monkeypatch):
    out = tmp_path / "toy.png"
    build = toy.build

    def broken(config):
        if "GeometricMean" in str(config.combine):
            config.combine = {"_target_": "mtl.aggregation.CAGradWeighting", "c": -1.0}
        return build(config)

    monkeypatch.setattr(toy, "build", broken)
    assert main(["--methods", "gls,ew", "--steps", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "gls is left out. ConfigError: `c` should be 0 or more. Got -1.0." in printed.err
    assert "1 methods" in printed.out
    assert main(["--methods", "gls", "--steps", "1", "--out", str(out)]) == 2


@pytest.mark.parametrize("name", ["ant", "ant_nash", "ant_pcgrad"])
def test_clusters_are_no_more_than_tasks(name):
    assert [list(g) for g in toy.preset(name).clusters(["a", "b"])] == [["a"], ["b"]]
