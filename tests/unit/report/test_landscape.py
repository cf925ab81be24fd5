"""Losses around a model: against formulas, and for checkpoints as a user draws them."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

from mtl.report.landscape import Landscape
from scripts import landscape as script
from tests.integration.shell import TINY, invoke
from tests.support import assert_same, state_of


class Bowls(nn.Module):
    """Losses `h_i |w - c|^2 / 2` of one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
        self.curvatures = torch.tensor([1.0, 9.0], dtype=torch.float64)

    def losses(self):
        return 0.5 * self.curvatures * self.weight.square().sum()


def test_uphill_is_along_the_gradient():
    model = Bowls()
    before = state_of(model)
    radii = [0.0, 0.5, 2.0]
    found = Landscape(model, model.losses).uphill(radii)
    expected = 0.5 * torch.tensor([[h * (5 + r) ** 2 for h in (1, 9)] for r in radii]).double()
    torch.testing.assert_close(found, expected)
    assert_same(state_of(model), before)


def test_random_directions_are_as_long_as_the_radius():
    model = Bowls()
    found = Landscape(model, model.losses).around([0.0, 2.0], draws=40)
    torch.testing.assert_close(found[0], model.losses().detach())
    assert (found[1] > 0.5 * model.curvatures * 3**2).all()
    assert (found[1] < 0.5 * model.curvatures * 7**2).all()
    assert (found[1] < Landscape(model, model.losses).uphill([2.0])[0]).all()


def test_a_distance_of_one_moves_each_filter_by_its_length():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    clean = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen = []

    def losses():
        seen.append({n: p.detach() - clean[n] for n, p in model.named_parameters()})
        return torch.zeros(2)

    line = Landscape(model, losses).line([-1.0, 0.0, 1.0])
    assert line.shape == (3, 2)
    moved = seen[2]["0.weight"].flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, clean["0.weight"].flatten(1).norm(dim=1))
    assert not any(step["1.weight"].any() or step["0.bias"].any() for step in seen)
    assert not seen[1]["0.weight"].any()


def test_same_seed_same_directions():
    model = Bowls()
    first, second, third = (
        Landscape(model, model.losses, seed=seed).plane([-0.5, 0.0, 0.5]) for seed in (0, 0, 1)
    )
    assert first.shape == (3, 3, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    torch.testing.assert_close(first[1, 1], model.losses().detach())


def test_two_checkpoints(tmp_path, capsys):
    paths = []
    for extra in ([], ["balancer/sharpness=task_sam"]):
        run = invoke(*TINY, "balancer=pcgrad", *extra, cwd=tmp_path).ok()
        paths.append(str(run.last))
        if extra:
            assert "TaskSAM evaluates the batch again 2 times" in run.out
            assert "balancer/sharpness/flat_norm" in (run.folder / "history.csv").read_text()
    out = tmp_path / "pictures"
    options = [f"ckpt={json.dumps(paths)}", "names=[plain,flat]", f"out={out}", "points=3"]
    assert script.main([*options, "samples=20", "radii=[0.1,0.5]"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("uphill") == 4
    for name in ("lines", "planes"):
        assert min(Image.open(out / f"{name}.png").size) > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`ckpt` should name one or two checkpoints"),
        (["ckpt=a.ckpt", "radius=1"], "Options should be some of"),
        (["ckpt=nowhere.ckpt"], "Checkpoint not found"),
        (["ckpt=a.ckpt", "part=all"], "`part` should be train, val or test. Got 'all'"),
        (["ckpt=a.ckpt", "points=1"], "`points` and `samples` should be 2 or more"),
        (["ckpt=[a.ckpt,b.ckpt]", "names=[x]"], "`names` should give each checkpoint a name"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert script.main(arguments) == 2
    assert message in capsys.readouterr().err
