"""The transform: cluster losses, absent tasks, weighting, what the balancer makes of it."""

import numpy as np
import pytest
import torch
from torch import nn

from mtl import Balancer, Step
from mtl.aggregation import NashMTLWeighting, PCGradWeighting
from mtl.errors import ConfigError, DataError
from mtl.scalarization import EqualWeighting, UncertaintyWeighting
from mtl.transforms import IntervalClustering, Log


def clustering(**options):
    return IntervalClustering(10, 3, objective="snr", values=VALUES, **options)


VALUES = [0.0, 0.1, 5.0, 5.1, 5.2, 5.3, 5.4, 9.0, 9.1, 9.2]  # clusters of 2, 5 and 3


def test_losses_of_clusters():
    part = clustering()
    assert part.bounds == [0, 2, 7, 10]
    losses = torch.arange(10.0)
    expected = torch.tensor([0.5, 4.0, 8.0])
    torch.testing.assert_close(part(losses), expected)
    sized = clustering(weighting="size")
    torch.testing.assert_close(sized(losses), expected * torch.tensor([2, 5, 3]) * 3 / 10)


def test_equal_weighting_of_clusters_by_size_is_that_of_the_tasks():
    losses = torch.rand(10, dtype=torch.float64)
    sized = clustering(weighting="size")
    torch.testing.assert_close(sized(losses).sum() / 3, losses.mean())


def losses_at(p, absent=()):
    return {f"t{i}": None if i in absent else (i + 1) * (p - i).square().sum() for i in range(10)}


@pytest.mark.parametrize(
    "combine",
    [EqualWeighting, lambda: UncertaintyWeighting(3), PCGradWeighting, NashMTLWeighting],
    ids=["ew", "uw", "pcgrad", "nash"],
)
@pytest.mark.parametrize("absent", [(), (0,), (0, 1), (4, 7)], ids=str)
def test_any_combiner_sees_the_present_clusters(combine, absent):
    """The same as with the losses of clusters written by hand."""
    gradients = []
    for by_hand in (False, True):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(4, dtype=torch.float64))
        losses = losses_at(p, absent)
        if by_hand:
            rows = [[losses[f"t{i}"] for i in range(a, b)] for a, b in ((0, 2), (2, 7), (7, 10))]
            kept = [[loss for loss in row if loss is not None] for row in rows]
            losses = {
                f"c{i}": torch.stack(row).mean() if row else None for i, row in enumerate(kept)
            }
        torch.manual_seed(0)
        balancer = Balancer(combine(), transforms=[] if by_hand else [clustering()]).double()
        balancer.backward(Step(losses, shared=[p]))
        own = [q.grad for q in balancer.parameters()]
        gradients.append([p.grad, *own])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_transforms_behind_it_see_clusters():
    p = nn.Parameter(torch.randn(4, dtype=torch.float64))
    balancer = Balancer(UncertaintyWeighting(3), transforms=[clustering(), Log()]).double()
    report = balancer.backward(Step(losses_at(p, absent=(0, 1)), shared=[p]))
    assert report.weights.shape == (8,)
    grad = balancer.combine.log_variance.grad
    assert grad[0] == 0  # its cluster is absent
    assert bool((grad[1:] != 0).all())


def test_clusters_and_what_goes_together():
    names = [f"t{i}" for i in range(10)]
    groups = [names[:2], names[2:7], names[7:]]
    pcgrad = Balancer(PCGradWeighting(), transforms=[clustering()])
    assert pcgrad.clusters(names) == pcgrad.together(names) == groups
    uw = Balancer(UncertaintyWeighting(3), transforms=[clustering()])
    assert uw.clusters(names) == groups
    assert uw.together(names) == [names]  # one backward pass whatever the weights
    assert Balancer(PCGradWeighting(), transforms=[Log()]).together(names) == [[n] for n in names]


def test_affinity_files(tmp_path):
    affinity = np.kron(np.eye(2), np.ones((5, 5)))
    np.save(tmp_path / "a.npy", affinity)
    np.savez(tmp_path / "a.npz", affinity=affinity)
    for given in (
        affinity,
        torch.from_numpy(affinity),
        tmp_path / "a.npy",
        str(tmp_path / "a.npz"),
    ):
        part = IntervalClustering(10, 2, objective="gradient", affinity=given)
        assert part.bounds == [0, 5, 10]
    (tmp_path / "b.npz").write_text("no array")
    for name in ("b.npz", "missing.npy"):
        with pytest.raises(DataError, match="affinity"):
            IntervalClustering(10, 2, objective="gradient", affinity=tmp_path / name)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"k": 11}, ["`k`", "10"]),
        ({"objective": "snr"}, ["`values`", "none"]),
        ({"objective": "gradient"}, ["`affinity`", "affinity.py"]),
        ({"objective": "snr", "values": [1.0, 2.0]}, ["one entry a task, 10", "2"]),
        ({"objective": "gradient", "affinity": np.eye(4)}, ["one entry a task, 10", "4"]),
        ({"objective": "gradient", "affinity": np.full((10, 10), np.nan)}, ["NaN"]),
        ({"objective": "raw"}, ["timestep, snr or gradient"]),
        ({"weighting": "sqrt"}, ["equal or size"]),
    ],
)
def test_wrong_arguments(options, named):
    with pytest.raises(ConfigError) as error:
        IntervalClustering(10, **options)
    assert all(word in str(error.value) for word in named), str(error.value)
