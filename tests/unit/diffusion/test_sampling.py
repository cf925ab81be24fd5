"""Samplers, guidance, switched denoisers, the oracle, distances of samples."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from benchmarks.diffusion.gmm import DiffusionGMM, GaussianMixture
from mtl.callbacks.samples import draw_samples
from mtl.diffusion import Diffusion, Switched, sample
from mtl.errors import ConfigError, DataError
from mtl.metrics import frechet_distance, precision_recall

pytest.importorskip("diffusers")


class Oracle(torch.nn.Module):
    """The optimal denoiser of the mixture; notes the timesteps that it is asked for."""

    def __init__(self, mixture, diffusion):
        super().__init__()
        self.mixture, self.diffusion, self.seen = mixture, diffusion, []

    def predict(self, x, t, label):
        self.seen.append(int(t[0]))
        abar = self.diffusion.alphas_cumprod[t]
        return self.mixture.optimal_eps(x.double(), abar).float()


def test_oracle_is_the_score():
    mixture = GaussianMixture()
    x = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    abar = torch.linspace(0.02, 0.999, 30, dtype=torch.float64)
    (score,) = torch.autograd.grad(mixture.log_density(x, abar).sum(), x)
    torch.testing.assert_close(mixture.optimal_eps(x, abar), -(1 - abar).sqrt()[:, None] * score)


def test_oracle_is_the_posterior_mean():
    """Monte Carlo: draws of x_0, weighted by how likely they make x_t."""
    mixture = GaussianMixture(sigma=0.3)
    abar = torch.tensor([0.3], dtype=torch.float64)
    x = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
    points = mixture.draw(400_000, seed=5)[0].double()
    eps = (x - abar.sqrt() * points) / (1 - abar).sqrt()
    weights = (-eps.square().sum(1) / 2).softmax(0)
    torch.testing.assert_close(weights @ eps, mixture.optimal_eps(x, abar)[0], atol=5e-3, rtol=0)


def test_mixture_has_unit_variance():
    points, _ = GaussianMixture().draw(100_000, seed=0)
    torch.testing.assert_close(points.var(0), torch.ones(2), atol=0.02, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_the_oracle_samples_the_mixture(sampler):
    diffusion = Diffusion()
    mixture = GaussianMixture()
    samples = sample(
        Oracle(mixture, diffusion),
        (500, 2),
        generator=torch.Generator().manual_seed(0),
        sampler=sampler,
        steps=100,
        clip=2.0,
    )
    nearest = torch.cdist(samples.double(), mixture.means).min(1).values
    assert float((nearest < 4 * mixture.sigma).double().mean()) > 0.95
    quality = DiffusionGMM(diffusion, intervals=5).quality(samples)
    assert quality["near_mode"] > 0.9
    assert quality["mode_tv"] < 0.15
    assert quality["frechet"] < 0.05


def test_a_respaced_sampler_uses_original_timesteps():
    oracle = Oracle(GaussianMixture(), Diffusion())
    sample(oracle, (2, 2), generator=torch.Generator().manual_seed(0), steps=10)
    assert oracle.seen == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]


class Constant(torch.nn.Module):
    """Predicts its class, 0 for "no class"."""

    def __init__(self):
        super().__init__()
        self.diffusion, self.calls = Diffusion(), []

    def predict(self, x, t, label):
        self.calls.append(label.tolist())
        return (label % 3)[:, None].expand_as(x).float()


def test_guidance():
    options = {"steps": 1, "label": torch.tensor([1, 2]), "no_label": 3}

    def run(guidance):
        denoiser = Constant()
        generator = torch.Generator().manual_seed(0)
        x = sample(denoiser, (2, 1), generator=generator, guidance=guidance, **options)
        return x, denoiser.calls

    plain, calls = run(1.0)
    assert calls == [[1, 2]]
    guided, calls = run(2.5)
    assert calls == [[1, 2], [3, 3]]
    unguided, _ = run(0.0)
    torch.testing.assert_close(guided - unguided, 2.5 * (plain - unguided))


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 1001}, {"sampler": "euler"}])
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        sample(Constant(), (1, 1), generator=torch.Generator(), **options)


def test_a_specialist_equal_to_the_shared_net_changes_nothing():
    diffusion = Diffusion()
    data = DiffusionGMM(diffusion, intervals=5)
    oracle = Oracle(data.mixture, diffusion)
    mixed = Switched([oracle, oracle, oracle], [0, 400, 600, 1000])
    plain = draw_samples(oracle, data, 50, steps=20)
    assert torch.equal(plain, draw_samples(mixed, data, 50, steps=20))


def test_one_interval_is_the_other_network():
    other = Constant()
    mixed = Switched([other], [0, 1000])
    x, t, label = torch.zeros(3, 1), torch.tensor([0, 500, 999]), torch.tensor([0, 1, 2])
    assert torch.equal(mixed.predict(x, t, label), other.predict(x, t, label))


def test_switched_denoisers_take_their_timesteps():
    class Number(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.diffusion, self.value = Diffusion(), value

        def predict(self, x, t, label):
            return torch.full_like(x, self.value)

    mixed = Switched([Number(1.0), Number(2.0)], [0, 300, 1000])
    t = torch.tensor([0, 299, 300, 999])
    assert mixed.predict(torch.zeros(4, 1), t, t)[:, 0].tolist() == [1, 1, 2, 2]
    for bounds in ([0, 1000], [0, 300, 900], [0, 0, 1000]):
        with pytest.raises(ConfigError, match="bounds"):
            Switched([Number(1.0), Number(2.0)], bounds)


# ------------------------------------------------------------------------------------- distances


def test_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, 4)), rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) + 1
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    shifted = frechet_distance(a, a + np.array([3.0, 0, 0, 4.0]))
    assert shifted == pytest.approx(25, rel=1e-9)


def test_precision_and_recall():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 2))
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    few = real[np.linalg.norm(real, axis=1) < 0.5]  # realistic, and little variety
    precision, recall = precision_recall(real, few)
    assert precision == 1.0
    assert recall < 0.5


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 2)), np.full((9, 2), math.nan)])
def test_wrong_features(bad):
    with pytest.raises(DataError, match="finite"):
        frechet_distance(bad, np.zeros((9, 2)))
    with pytest.raises(DataError, match="finite"):
        precision_recall(np.zeros((9, 2)), bad)
