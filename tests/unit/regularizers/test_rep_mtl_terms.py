"""TSR and CSA: the printed formulas with explicit C x C matrices, closed forms, bounds."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.speed.memory import peak_bytes
from mtl.linalg import Product, gram_products
from mtl.regularizers import csa, tsr


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def naive_tsr(saliency, eps=1e-6):
    """Eq. 4 to 6, position by position."""
    size = saliency.mean(2).abs()
    total = saliency.new_zeros(())
    _, samples, positions = size.shape
    scale = size.detach().square().mean().sqrt()
    for b in range(samples):
        for i in range(positions):
            share = size[:, b, i] / (size[:, b, i].sum() + eps * scale)
            total = total - sum(p * torch.log(p + 1e-12) for p in share)
    return total / (samples * positions)


def naive_csa(saliency, temperature, *, negatives="anchors", over_tasks="mean", with_own=False):
    """Eq. 7 to 9 with every C x C matrix."""
    tasks, samples = saliency.shape[:2]
    maps = F.normalize((saliency @ saliency.mT).flatten(2), dim=2, eps=0)
    columns = saliency.mean(3).permute(1, 2, 0)
    anchors = F.normalize((columns @ columns.mT).flatten(1), dim=1, eps=0)
    total = saliency.new_zeros(())
    for b in range(samples):
        others = [k for k in range(samples) if k != b]
        pool = (
            [anchors[k] for k in others]
            if negatives == "anchors"
            else [maps[t, k] for k in others for t in range(tasks)]
        )
        for t in range(tasks):
            positive = anchors[b] @ maps[t, b] / temperature
            terms = [anchors[b] @ other / temperature for other in pool]
            terms += [positive] if with_own else []
            total = total + torch.stack(terms).logsumexp(0) - positive
    return total / (samples * (tasks if over_tasks == "mean" else 1))


def compare(found, expected, saliency):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    ours, theirs = (torch.autograd.grad(v, saliency)[0] for v in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


SHAPES = [(3, 4, 5, 7), (3, 4, 7, 5), (2, 5, 6, 6), (2, 3, 6, 1), (1, 4, 3, 2), (4, 2, 1, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_csa_is_the_printed_formula(shape):
    saliency = random(*shape).requires_grad_()
    compare(csa(saliency, 0.1), naive_csa(saliency, 0.1), saliency)


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"negatives": "affinities"}, {"negatives": "affinities"}),
        ({"over_tasks": "sum"}, {"over_tasks": "sum"}),
        ({"positive_in_denominator": True}, {"with_own": True}),
        (
            {"negatives": "affinities", "positive_in_denominator": True, "over_tasks": "sum"},
            {"negatives": "affinities", "with_own": True, "over_tasks": "sum"},
        ),
    ],
)
def test_csa_options(options, reference):
    saliency = random(3, 4, 5, 6).requires_grad_()
    compare(csa(saliency, 0.5, **options), naive_csa(saliency, 0.5, **reference), saliency)
    assert not torch.isclose(csa(saliency, 0.5, **options), csa(saliency, 0.5))


def test_csa_of_more_matrices_than_exist_at_a_time(monkeypatch):
    monkeypatch.setattr("mtl.linalg.affinity._CHUNK", 60)  # two 5 x 5 matrices, of 4
    saliency = random(3, 4, 7, 5).requires_grad_()
    compare(csa(saliency, 0.1), naive_csa(saliency, 0.1), saliency)


@pytest.mark.parametrize("shape", [(9, 5, 4, 3), (9, 5, 4, 1), (9, 2, 40, 3)], ids=str)
@pytest.mark.parametrize("detach_anchors", [False, True])
def test_csa_of_many_tasks(shape, detach_anchors):
    """Anchors are formed for the first two, 4 x 4 in place of 9 x 9 products a pair of samples."""
    saliency = random(*shape).requires_grad_()
    found = csa(saliency, 0.1, detach_anchors=detach_anchors)
    if not detach_anchors:
        compare(found, naive_csa(saliency, 0.1), saliency)
        return
    anchors = saliency.detach()
    torch.testing.assert_close(found, naive_csa(anchors, 0.1), rtol=1e-12, atol=1e-13)
    anchors = torch.einsum("tbc,tbd->bcd", anchors.mean(3), anchors.mean(3))
    cosines = F.cosine_similarity(anchors.flatten(1), (saliency @ saliency.mT).flatten(2), dim=2)
    ours, theirs = (torch.autograd.grad(v, saliency)[0] for v in (found, -cosines.mean() / 0.1))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("chunk", [2**22, 100])
def test_products_of_anchors_from_the_smaller_matrices(monkeypatch, chunk):
    """Of 8 channels C x C matrices are formed, of 508 with 500 zeros m x m products."""
    monkeypatch.setattr("mtl.linalg.affinity._CHUNK", chunk)  # 100: two columns at a time
    anchors = random(5, 9, 8).requires_grad_()
    small, large = gram_products(anchors), gram_products(F.pad(anchors, (0, 500)))
    torch.testing.assert_close(small, large, rtol=1e-12, atol=1e-12)
    expected = (anchors[1] @ anchors[3].mT).square().sum()
    torch.testing.assert_close(small[1, 3], expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad((v * random(5, 5, seed=1)).sum(), anchors)[0] for v in (small, large)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_detached_anchors_have_no_gradient():
    saliency = random(2, 3, 4, 5).requires_grad_()
    anchors = saliency.detach().clone().mean(3).permute(1, 2, 0)
    anchors = F.normalize((anchors @ anchors.mT).flatten(1), dim=1)
    maps = F.normalize((saliency @ saliency.mT).flatten(2), dim=2)
    positive = torch.einsum("bn,tbn->tb", anchors, maps).mean()
    (expected,) = torch.autograd.grad(-positive / 0.1, saliency)
    (found,) = torch.autograd.grad(csa(saliency, 0.1, detach_anchors=True), saliency)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 1], ids=str)
def test_tsr_is_the_printed_formula(shape):
    saliency = random(*shape).requires_grad_()
    compare(tsr(saliency), naive_tsr(saliency), saliency)


def test_tsr_of_absolute_values():
    saliency = random(3, 2, 4, 5).requires_grad_()
    found = tsr(saliency, channel_mean="absolute")
    compare(found, naive_tsr(saliency.abs()), saliency)
    assert found > tsr(saliency)  # without cancellation tasks look more alike


def test_a_list_of_tasks_is_the_same():
    saliency = random(3, 4, 5, 7)
    assert tsr(list(saliency)) == tsr(saliency)
    assert csa(list(saliency), 0.1) == csa(saliency, 0.1)


PRODUCTS = {
    "wide": (random(5, 2), random(4, 2, 7)),
    "tall": (random(8, 3), random(4, 3, 5)),
    "one output": (random(6, 1), random(4, 1, 9)),
    "small": (1e-9 * random(5, 2), 1e-9 * random(4, 2, 7)),
    "zero sample": (random(5, 2), random(4, 2, 7) * torch.tensor([1.0, 0, 1, 1])[:, None, None]),
    "zero weight": (torch.zeros(5, 2).double(), random(4, 2, 7)),
}


@pytest.mark.parametrize(
    "term",
    [
        tsr,
        csa,
        lambda s: tsr(s, channel_mean="absolute"),
        lambda s: csa(s, negatives="affinities"),
        lambda s: csa(s, detach_anchors=True),
    ],
    ids=["tsr", "csa", "absolute", "affinities", "detached anchors"],
)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_products_are_as_good_as_what_they_stand_for(kind, term):
    left, right = (t.clone().requires_grad_() for t in PRODUCTS[kind])
    other = random(4, len(left), right.shape[2], seed=1)
    found = term([Product(left, right), other])
    expected = term([left @ right, other])
    torch.testing.assert_close(found, expected)
    for factor in (left, right):
        ours, theirs = (
            torch.autograd.grad(v, factor, retain_graph=True)[0] for v in (found, expected)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


# --------------------------------------------------------------------------------- closed forms


def test_tsr_of_equal_and_of_disjoint_tasks():
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None, None, None]
    even = sign * random(1, 2, 3, 4)
    assert tsr(even).item() == pytest.approx(math.log(3), abs=1e-4)
    owner = torch.arange(12).reshape(2, 1, 6) % 3
    disjoint = torch.stack([(owner == t) * random(2, 5, 6, seed=t) for t in range(3)])
    assert tsr(disjoint).item() == pytest.approx(0, abs=1e-5)


def test_csa_where_all_tasks_have_the_same_vector():
    """M = s s^T and the anchor is m s s^T: positive similarities are 1."""
    vectors = torch.eye(4, dtype=torch.float64)[None, :, :, None].expand(3, -1, -1, -1)
    assert csa(vectors, 0.1).item() == pytest.approx(math.log(3) - 1 / 0.1)  # orthogonal samples
    same = torch.ones(3, 4, 5, 1, dtype=torch.float64)
    assert csa(same, 0.1).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("shape", [(3, 1, 4, 5), (1, 1, 4, 1)], ids=str)
def test_one_sample_has_no_negatives(shape):
    value = csa(random(*shape).requires_grad_(), 0.1)
    assert value == 0
    assert not value.requires_grad


def test_one_task_shares_nothing():
    value = tsr(random(1, 3, 4, 5).requires_grad_())
    assert value == 0
    assert not value.requires_grad


def test_saliency_that_is_zero():
    """Samples without a label, and a batch without any."""
    saliency = random(2, 4, 3, 5)
    saliency[0, 1] = 0
    saliency[:, 2] = 0
    for value in (saliency, torch.zeros(2, 4, 3, 5, dtype=torch.float64)):
        value.requires_grad_()
        for term in (tsr(value), csa(value, 0.1)):
            assert term.isfinite()
            (gradient,) = torch.autograd.grad(term, value, allow_unused=True)
            assert gradient is None or gradient.isfinite().all()


sizes = st.tuples(st.integers(2, 4), st.integers(2, 4), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 10_000), st.floats(0.05, 2))
def test_bounds(shape, seed, temperature):
    saliency = random(*shape, seed=seed)
    assert -1e-9 <= tsr(saliency) <= math.log(shape[0]) + 1e-9
    middle = math.log(shape[1] - 1)
    assert abs(csa(saliency, temperature) - middle) <= (1 + 1e-9) / temperature


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 10_000), st.floats(1e-12, 1e12))
def test_a_common_factor_changes_nothing(shape, seed, factor):
    saliency = random(*shape, seed=seed).requires_grad_()
    scaled = (factor * saliency.detach()).requires_grad_()
    for term in (tsr, csa):
        torch.testing.assert_close(term(scaled), term(saliency), rtol=1e-9, atol=1e-9)
        (a,) = torch.autograd.grad(term(saliency), saliency)
        (b,) = torch.autograd.grad(term(scaled), scaled)
        torch.testing.assert_close(b * factor, a, rtol=1e-6, atol=1e-9)


def test_factors_of_single_tasks_do_change():
    saliency = random(3, 4, 5, 6)
    factors = torch.tensor([1.0, 10, 0.1])[:, None, None, None]
    assert tsr(factors * saliency) < tsr(saliency)


# ---------------------------------------------------------------------------- numerical traps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_small_saliencies_do_not_vanish(dtype):
    """64 samples, 2048 channels: squares of squares of 1e-6 are far below the smallest float."""
    exact = (1e-3 if dtype == torch.float16 else 1e-8) * (
        random(3, 64, 2048, 2) + 0.3 * random(1, 64, 2048, 1, seed=1)
    )
    saliency = exact.to(dtype)
    reference = saliency.double()  # rounding of the input is not what is tested
    for term in (tsr, csa):
        value = term(saliency)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), term(reference), rtol=1e-3, atol=1e-3)
    similar = csa(saliency, 1e9)  # ln(B - 1): a normalization by its eps would say so at any
    assert similar == pytest.approx(math.log(63))
    assert abs(csa(saliency) - math.log(63)) > 0.1


@pytest.mark.parametrize("scale", [1e-12, 1e-16])
def test_float32_at_the_scale_of_real_batches(scale):
    saliency = random(3, 8, 16, 20)
    for term in (tsr, csa):
        small = (saliency * scale).float().requires_grad_()
        value = term(small)
        torch.testing.assert_close(value.double(), term(saliency), rtol=1e-4, atol=1e-4)
        assert torch.autograd.grad(value, small)[0].isfinite().all()


# ------------------------------------------------------------------------------------- memory


def test_csa_needs_a_fifth_of_the_memory_of_all_matrices():
    """More channels than positions, forward and backward, beyond saliency and its gradient."""
    saliency = torch.randn(3, 2, 512, 256).requires_grad_()
    own = saliency.numel() * saliency.element_size()

    def extra(term):
        return peak_bytes(lambda: torch.autograd.grad(term(saliency, 0.1), saliency)) - own

    ours, theirs = extra(csa), extra(naive_csa)
    assert 0 < ours < theirs / 5
