"""Every registered balancer x gradients without norm, rank or direction: never NaN, in float32."""

import pytest
import torch
from torch import nn

from mtl import Step
from tests.support import VARIANTS, make_balancer

ROW = torch.tensor([1.0, -2.0, 3.0, 4.0])
OTHER = torch.tensor([-1.0, 0.5, 2.0, 1.0])
CASES = {
    "zero rows": torch.zeros(3, 4),
    "a zero row": torch.stack([ROW, 0 * ROW, OTHER]),
    "identical rows": ROW.repeat(3, 1),
    "opposite rows": torch.stack([ROW, -ROW, OTHER]),
    "two opposite rows": torch.stack([ROW, -ROW]),
    "a long opposite row": torch.stack([ROW, -1e6 * ROW, OTHER]),
    "a tiny row": torch.stack([ROW, 1e-6 * OTHER, OTHER]),
    "one task": ROW[None],
    "one task of zero": torch.zeros(1, 4),
    "plain rows": torch.stack([ROW, OTHER, ROW.flip(0)]),
}
SCALES = [1e-20, 1e-10, 1.0, 1e10, 1e20]
AMP = 65536.0  # where the gradient scaler of float16 starts


class Problem:
    """Losses `scale (1 + <g_i, p>) (1 + q_i)` at p = 0, q = 0: the rows are `scale g_i`."""

    def __init__(self, rows, scale):
        self.rows = rows
        self.scale = scale
        self.shared = nn.Parameter(torch.zeros(rows.shape[1]))
        self.heads = {f"task{i}": nn.Parameter(torch.zeros(())) for i in range(len(rows))}

    def step(self, amp=1.0):
        representation = torch.ones(2, 1) * self.shared  # a batch of two
        losses = {
            name: self.scale * (1 + row @ representation.mean(0)) * (1 + head)
            for row, (name, head) in zip(self.rows, self.heads.items(), strict=True)
        }
        step = Step(
            losses,
            shared=[self.shared],
            specific={name: [head] for name, head in self.heads.items()},
            representation=dict.fromkeys(losses, (representation,)),
            recompute=self.step,
        )
        step.scale = amp
        return step

    def take_gradient(self):
        """What lies in `.grad`, which is emptied."""
        parameters = [self.shared, *self.heads.values()]
        found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        return torch.cat([g.reshape(-1) for g in found])


def gradients(variant, rows, scale, amp):
    """Those of three steps at the same point: the state, if there is one, must survive."""
    problem, balancer = Problem(rows, scale), make_balancer(variant, len(rows))
    for epoch in range(3):
        balancer.on_epoch_start(epoch)
        step = problem.step(amp)
        assert balancer.backward(step).nonfinite == ()
        yield problem.take_gradient()
        balancer.after_step(step)


QUICK = ("a zero row", "opposite rows")  # the others take minutes


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_finite(variant, case):
    for scale in SCALES:
        for amp in (1.0, AMP):
            for found in gradients(variant, CASES[case], scale, amp):
                assert bool(found.isfinite().all()), (scale, amp, found)
