"""Schedules, predictions, weights; draws of timesteps; batches by task."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mtl.diffusion import Diffusion, Intervals, Noisy
from mtl.errors import ConfigError


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("timesteps", [1000, 50])
def test_snr_falls_and_noising_keeps_the_variance(schedule, timesteps):
    diffusion = Diffusion(schedule=schedule, timesteps=timesteps)
    assert bool((diffusion.log_snr.diff() < 0).all())
    torch.testing.assert_close(
        diffusion.log_snr, (diffusion.alphas_cumprod / (1 - diffusion.alphas_cumprod)).log()
    )
    ones = torch.ones(timesteps)
    torch.testing.assert_close(diffusion.signal.square() + diffusion.noise.square(), ones)


def test_schedules_against_diffusers():
    diffusers = pytest.importorskip("diffusers")
    for ours, theirs in (("linear", "linear"), ("cosine", "squaredcos_cap_v2")):
        reference = diffusers.DDPMScheduler(beta_schedule=theirs).alphas_cumprod
        torch.testing.assert_close(
            Diffusion(schedule=ours).alphas_cumprod.float(), reference, rtol=2e-4, atol=1e-7
        )


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_predictions_are_the_same_noise(prediction):
    diffusion = Diffusion(prediction=prediction).double()
    x0, eps = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 3, dtype=torch.float64)
    t = torch.randint(1000, (40,))
    x = diffusion.add_noise(x0, t, eps)
    signal, noise = diffusion.signal[t, None], diffusion.noise[t, None]
    output = {"eps": eps, "x0": x0, "v": signal * eps - noise * x0}[prediction]
    torch.testing.assert_close(diffusion.to_eps(output, x, t), eps, rtol=1e-4, atol=1e-4)
    # w_t times the error of eps is the network's own squared error.
    other = output + torch.randn_like(output)
    own = (other - output).square().sum(1)
    error = (diffusion.to_eps(other, x, t) - diffusion.to_eps(output, x, t)).square().sum(1)
    torch.testing.assert_close(diffusion.weights()[t] * error, own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_min_snr_and_p2(prediction):
    snr = Diffusion().log_snr.exp().float()
    w = Diffusion(prediction=prediction, loss_weights="min_snr", gamma=5).weights()
    assert bool((w[snr <= 5] == 1).all())
    torch.testing.assert_close(w[snr > 5], 5 / snr[snr > 5])
    p2 = Diffusion(prediction=prediction, loss_weights="p2", gamma=0.5, k=2).weights()
    torch.testing.assert_close(p2, (2 + snr) ** -0.5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timesteps": 0}, "timesteps"),
        ({"schedule": "cubic"}, "schedule"),
        ({"prediction": "noise"}, "prediction"),
        ({"loss_weights": "snr"}, "loss_weights"),
        ({"gamma": -1.0}, "gamma"),
    ],
)
def test_wrong_options(options, named):
    with pytest.raises(ConfigError, match=named):
        Diffusion(**options)


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_out_of_range(t):
    with pytest.raises(ConfigError, match=r"0\.\.999"):
        Diffusion().add_noise(torch.zeros(1, 2), torch.tensor([t]), torch.zeros(1, 2))


# ------------------------------------------------------------------------------------- intervals


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_names_and_bounds():
    intervals = Intervals(1000, 3)
    assert intervals.bounds == [0, 333, 667, 1000]
    assert intervals.names == ["t0_332", "t333_666", "t667_999"]
    positions = intervals.positions(Diffusion())
    assert positions[0] == pytest.approx(float(Diffusion().log_snr[:333].mean()))
    assert positions == sorted(positions, reverse=True)


CLUSTERS = [["t0_9"], ["t10_19", "t20_29", "t30_39"], ["t40_49"]]


@pytest.mark.parametrize("size", [3, 30, 31, 50])
def test_clusters_get_equal_shares(size):
    intervals = Intervals(50, 5)
    counts = []
    for seed in range(200):
        t = intervals.draw(size, CLUSTERS, generator(seed))
        assert bool((t.diff() >= 0).all())
        counts.append([int(((t >= a) & (t < b)).sum()) for a, b in ((0, 10), (10, 40), (40, 50))])
    counts = np.array(counts)
    assert (counts.sum(1) == size).all()
    assert np.abs(counts - size / 3).max() < 2
    if size % 3 == 0:
        assert (counts == size // 3).all()
    np.testing.assert_allclose(counts.mean(0), size / 3, atol=0.15)


def test_every_timestep_is_reached_uniformly_within_its_cluster():
    intervals = Intervals(50, 5)
    t = torch.cat([intervals.draw(31, CLUSTERS, generator(seed)) for seed in range(2000)])
    counts = torch.bincount(t, minlength=50).numpy()
    for start, end in ((0, 10), (10, 40), (40, 50)):
        assert chisquare(counts[start:end]).pvalue > 1e-3
    assert counts.min() > 0


def test_part_of_the_tasks():
    intervals = Intervals(50, 5)
    t = intervals.draw(100, [["t10_19"], ["t30_39"]], generator())
    assert set(t.tolist()) <= {*range(10, 20), *range(30, 40)}


def test_a_batch_smaller_than_the_number_of_clusters():
    with pytest.raises(ConfigError, match="2 samples for 3 clusters"):
        Intervals(50, 5).draw(2, CLUSTERS, generator())


@pytest.mark.parametrize("count", [0, 51])
def test_wrong_number_of_intervals(count):
    with pytest.raises(ConfigError, match="between 1 and 50"):
        Intervals(50, count)


def test_rows_go_to_their_tasks():
    intervals = Intervals(50, 5)
    t = torch.tensor([0, 9, 10, 35, 35, 49])
    x = torch.arange(6.0)
    noisy = Noisy(x, t, torch.zeros(6), torch.ones(6))
    inputs, targets = intervals.by_task(noisy, 10 * x)
    assert {name: part.x.tolist() for name, part in inputs.items()} == {
        "t0_9": [0, 1],
        "t10_19": [2],
        "t30_39": [3, 4],
        "t40_49": [5],
    }
    for name, target in targets.items():
        assert torch.equal(target, 10 * inputs[name].x)


def test_size_weighting_of_clusters_is_the_mean_over_all_timesteps():
    """Every t once, fixed noise: sum over clusters of |I|/T L_c is the vanilla loss."""
    loss = torch.rand(50)
    intervals = Intervals(50, 5)
    shares, means = [], []
    for cluster in CLUSTERS:
        start = intervals.bounds[intervals.names.index(cluster[0])]
        end = intervals.bounds[intervals.names.index(cluster[-1]) + 1]
        shares.append((end - start) / 50)
        means.append(loss[start:end].mean())
    total = sum(a * b for a, b in zip(shares, means, strict=True))
    torch.testing.assert_close(total, loss.mean())
