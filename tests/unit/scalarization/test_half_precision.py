"""Losses in half precision, where the small constants of formulas are zero."""

import pytest
import torch

from mtl.scalarization import FAMO, STCH
from mtl.transforms import Log

# Exact in float16 and bfloat16: zero, the least number and a large one among them.
LOSSES = [0.0, 2.0**-24, 2.0**-10, 1.0, 3.0, 2.0**15]
METHODS = {
    "famo": lambda: FAMO(6),
    "famo with bounds": lambda: FAMO(6, min_losses=[-1.0, 0, 0, 0, 0, 0]),
    "stch": lambda: STCH(6),
    "stch of small losses": lambda: STCH(6, mu=0.01),
    "stch of libmtl": lambda: STCH(6, like="libmtl", nadir=[1.0] * 6),
    "stch of libmtl, nadir of the first losses": lambda: STCH(6, like="libmtl"),
    "stch of libmtl in its warm-up": lambda: STCH(6, like="libmtl", warmup_steps=9),
    "log": Log,
}


def value_and_slopes(method, dtype):
    losses = torch.tensor(LOSSES, dtype=dtype, requires_grad=True)
    values = method(losses)
    (slopes,) = torch.autograd.grad(values.sum(), losses)
    return values.detach(), slopes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_they_are_combined_in_single_precision(name, dtype):
    half, single = METHODS[name](), METHODS[name]()
    for _ in range(3):
        values, slopes = value_and_slopes(half, dtype)
        expected, derivative = value_and_slopes(single, torch.float32)
        assert values.dtype == torch.float32
        assert torch.equal(values, expected)
        assert slopes.dtype == dtype  # autograd rounds them: to infinity beyond 65504
        assert torch.equal(slopes, derivative.to(dtype))
    assert not bool(values.isnan().any() | slopes.isnan().any())


@pytest.mark.parametrize("name", METHODS)
def test_double_precision_stays(name):
    assert value_and_slopes(METHODS[name](), torch.float64)[0].dtype == torch.float64
