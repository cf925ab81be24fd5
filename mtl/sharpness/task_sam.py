"""A perturbation for every task, and flat parts that are combined apart."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mtl.distributed import world_size
from mtl.engine import Combined, Objectives
from mtl.errors import ConfigError
from mtl.linalg import lengths
from mtl.parts import Aggregator, Combiner, Scalarizer, Sharpness, Stochastic, Weighting
from mtl.rows import Gradients
from mtl.sharpness.joint import ascend
from mtl.sharpness.perturbation import (
    Ball,
    Excursion,
    Move,
    Norm,
    check_mode,
    check_owners,
    relative_size,
    rises,
)
from mtl.sharpness.rows import GivenRows, TaskGradients, cut, join, length, unite
from mtl.step import Step

if TYPE_CHECKING:
    from mtl.balancer import Balancer

Combination = Literal["decomposed", "direct", "second", "each"]
_CHOICES = {
    "combine": ("decomposed", "direct", "second", "each"),
    "perturbation": ("per_task", "joint"),
}
_VANISHED = 1e-8


class TaskSAM(Sharpness):
    """Flat minima for every task, over any combiner A (F-MTL, Algorithm 1).

    With `g_i`, `q_i` the gradients of task i by the shared parameters `p` and its head `h_i`:

        `e_i = rho_shared g_i / |g_i|`, `d_i = rho_task q_i / |q_i|`
        `g'_i`, `q'_i`: the gradients at `(p + e_i, h_i + d_i)`, on the same batch
        `f_i = g'_i - g_i`, the flat part: to first order that of `rho_shared |g_i|`
        the gradient of `p` is `A(g_1, ..., g_m) + A(f_1, ..., f_m)`, that of `h_i` is `q'_i`.

    Args:
        rho_shared: Radius for the shared parameters, 0 or more. Tune it: the paper's code has 3e-4
            to 2, from data set to data set.
        rho_task: Radius for the heads, 0 or more. Default: `rho_shared`. Both 0: switched off.
        adaptive: Radii relative to the parameters, by element (ASAM); the paper's code has it, with
            2. About 10 times the radius without.
        norm: `separate` as in Algorithm 1; `joint`: one norm over the shared parameters and the
            head (the paper's MultiMNIST code), which for one task is single-task SAM.
        combine: `decomposed` as above; `direct`: `A(g'_1, ..., g'_m)`; `second`:
            `A(A(g), A(f))`; `each`: `A` of `A(g_i, f_i)` over the tasks. The last two need a
            combiner without state for single tasks.
        perturbation: `per_task`; `joint`: all losses at one point, `e` along the sum of the `g_i`
            (a scalarizer's weighted sum), each head with its own `d_i`. That saves `m - 1` forward
            passes.
        scale_match: Combine the flat parts on the scale of the losses' gradients, and scale back,
            so that the flat part vanishes with the radius. Changes nothing but rounding for
            combiners that are homogeneous of degree one; Nash-MTL and FairGrad are not, their flat
            part would stay or grow. `False` is what the paper's code does.
        flat_coef: Factor on the combined flat part, 0 or more (`decomposed` only).
        every: Perturb in every so many steps. Under accumulation, micro-batches count.
        reuse: In the steps between, the part of the last flat part that was orthogonal to the loss
            part is added again, relative to the loss part's length, at most 1 (as LookSAM does for
            one task). `False`: they are the balancer's own.
        start: Share of the training before the first perturbation, 0 to 1. Lightning knows how far
            it is; in a hand-written loop set `step.progress`.
        sync_perturbation: With several processes, perturb along gradients of the global batch, so
            that the update is what one process computes on it. `False`: along those of the local
            samples, as SAM's authors advise; gradients are summed over the processes after that.

    The combiner of the flat parts is a copy with state of its own (averages, warm starts, draws),
    in checkpoints as well; the weights of one part must not be reused for the other: MGDA's clean
    weights may be zero, and the flat part of that task is then lost. A scalarizer's weights depend
    on the losses alone: both parts have those of the clean point. Transforms act with their slopes
    at the clean point, and regularizers add their gradient at it.

    Rows for losses and flat parts are kept, `2 m` times the shared parameters; perturbations are
    built from them one by one. A step whose second pass is not finite is skipped as a whole. Where
    the paper or its code leaves a choice: both radii are separate options, the clean forward pass
    is shared by all tasks, parameters come back by copy, buffers and random draws as they were.

    Cost against forward and m backward passes: `(1 + 5 m) / (1 + 2 m)` per task (2.3 for 3 tasks),
    2 with a joint perturbation; times `1 / every` and `1 - start` for what exceeds 1.

    References:
        Phan, Tran, Tran, Tran, Truong, Lei, Ho, Phung, Le. Beyond Losses Reweighting: Empowering
        Multi-Task Learning via the Generalization Perspective. ICCV 2025 (Algorithm 1).
        https://arxiv.org/abs/2211.13723
        Liu, Mai, Chen, Hsieh, You. Towards Efficient and Scalable Sharpness-Aware Minimization
        (LookSAM). CVPR 2022. https://arxiv.org/abs/2203.02714
    """

    def __init__(
        self,
        *,
        rho_shared: float = 0.05,
        rho_task: float | None = None,
        adaptive: bool = False,
        norm: Norm = "separate",
        combine: Combination = "decomposed",
        perturbation: Literal["per_task", "joint"] = "per_task",
        scale_match: bool = True,
        flat_coef: float = 1.0,
        every: int = 1,
        reuse: bool = True,
        start: float = 0.0,
        sync_perturbation: bool = True,
    ) -> None:
        super().__init__()
        self.ball = Ball(rho_shared, rho_shared if rho_task is None else rho_task, adaptive, norm)
        for name, value in (("combine", combine), ("perturbation", perturbation)):
            if value not in _CHOICES[name]:
                raise ConfigError(f"`{name}` should be one of {_CHOICES[name]}. Got {value!r}.")
        if not 0 <= flat_coef < float("inf"):
            raise ConfigError(f"`flat_coef` should be 0 or more. Got {flat_coef}.")
        if flat_coef != 1 and combine != "decomposed":
            raise ConfigError(
                f'`flat_coef` needs combine="decomposed", which has a flat part apart. Got '
                f"{combine!r}. Leave it at 1."
            )
        if every < 1:
            raise ConfigError(f"`every` should be 1 or more. Got {every}.")
        if every > 1 and reuse and combine in ("direct", "each"):
            raise ConfigError(
                f'`every` > 1 reuses the flat part: combine should be "decomposed" or "second". '
                f"Got {combine!r}. Use reuse=False, or every=1."
            )
        if not 0 <= start <= 1:
            raise ConfigError(f"`start` should be a share of the training, 0 to 1. Got {start}.")
        self.combine = combine
        self.perturbation = perturbation
        self.scale_match = scale_match
        self.flat_coef = flat_coef
        self.every = every
        self.reuse = reuse
        self.start = start
        self.sync_perturbation = sync_perturbation
        self.flat_combine: Combiner | None = None
        self._calls = 0
        self._kept: Tensor | None = None  # [n] what the steps between add, for a loss part of 1
        self._told: set[str] = set()

    def wrap(self, balancer: Balancer) -> None:
        """Copies the combiner for the flat parts.

        Raises:
            ConfigError: The level or the combiner does not fit the mode.
        """
        linear = isinstance(balancer.combine, Scalarizer)
        rows = self.perturbation == "per_task" or not (linear or self.combine == "direct")
        if rows and balancer.level != "parameters":
            raise ConfigError(
                "TaskSAM compares gradients of the shared parameters: `level` should be "
                f'"parameters". Got {balancer.level!r}. Change it, or use joint_sam.'
            )
        if balancer.max_rows is not None:
            raise ConfigError(
                "TaskSAM keeps a row a task for losses and one for flat parts: leave `max_rows` "
                f"out, or use joint_sam. Got max_rows={balancer.max_rows}."
            )
        if self.combine in ("second", "each"):
            _check_stateless(self.combine, balancer.combine)
        self.flat_combine = None if linear else _twin(balancer.combine)

    def describe(self, num_tasks: int) -> str:
        """What it adds to the cost of a step, in words."""
        times = f" {num_tasks} times" if self.perturbation == "per_task" and num_tasks > 1 else ""
        when = f" in 1 of {self.every} steps" if self.every > 1 else ""
        when += f" after {self.start:.0%} of the training" if self.start else ""
        return f"TaskSAM evaluates the batch again{times}, with rows of its own,{when}".rstrip(",")

    def forward(self, step: Step, balancer: Balancer) -> Combined:
        """Loss part and flat part of the step."""
        if not self.ball or not self._started(step):
            return balancer.gradients(step)
        if self._calls % self.every:
            combined = self._between(step, balancer)
        else:
            check_mode(step)
            check_owners(step)
            objectives = balancer.objectives(step)
            try:
                combined = self._perturbed(step, balancer, objectives)
            finally:
                step.release()
        self._calls += 1
        return combined

    def get_extra_state(self) -> dict[str, Any]:
        """Number of steps since the start, and what the steps between add."""
        return {"calls": self._calls, "kept": self._kept}

    def set_extra_state(self, state: Any) -> None:
        """Goes on from there."""
        self._calls, self._kept = state["calls"], state["kept"]

    # ----------------------------------------------------------------------------------- when

    def _started(self, step: Step) -> bool:
        if step.progress is None and self.start > 0:
            self._tell(
                f"start={self.start}: how far the training is, is not known; perturbing from the "
                "first step. Set step.progress (0 to 1) before balancer.backward(step)."
            )
        return step.progress is None or step.progress >= self.start

    def _between(self, step: Step, balancer: Balancer) -> Combined:
        """The balancer's own gradients, and the flat part that was kept."""
        combined = balancer.gradients(step)
        if self._kept is not None:
            kept = self._kept.to(step.values.device)
            size = length(unite(combined.gradients, step.shared), kept)
            combined.gradients.extend(cut(kept * size, step.shared))
        return combined

    def _keep(self, loss: Tensor, flat: Tensor) -> None:
        """Notes the part of `flat` that is orthogonal to `loss`, relative to its length."""
        size = lengths([[loss]], loss)[0]
        unit = loss * torch.where(size > 0, 1 / size, 0.0)
        rest = torch.addcmul(flat, unit, -(flat @ unit))
        longest = torch.maximum(size, lengths([[rest]], rest)[0])
        self._kept = rest.mul_(torch.where(longest > 0, 1 / longest, 0.0))

    # ------------------------------------------------------------------------------ perturbed

    def _perturbed(self, step: Step, balancer: Balancer, objectives: Objectives) -> Combined:
        mode = "decomposed" if self._linear(objectives) else self.combine
        if self.perturbation == "joint" and (self._linear(objectives) or mode == "direct"):
            ascent = ascend(step, balancer, objectives, self.ball, sync=self.sync_perturbation)
            if not ascent.loss:
                return ascent.whole
            if self.flat_coef != 1:
                rest = [(p, (self.flat_coef - 1) * g) for p, g in unite(ascent.flat, step.shared)]
                ascent.whole.gradients.extend(rest)
            return self._finish(step, ascent.whole, ascent.loss, ascent.flat)
        extra = objectives.take_extra()
        low = _precision(step)
        clean = TaskGradients(step)
        clean.take(step)
        step.forget()  # the graph: parameters move now
        if self.sync_perturbation:
            clean.reduce()
        moved, scalars = self._second_pass(step, clean, low)
        if not self.sync_perturbation:
            clean.reduce()
        moved.reduce()
        moved.check_heads()
        if step.observed:
            scalars |= _cosines(step, clean.rows, moved.rows)
        combined = self._combined(mode, step, balancer, objectives, clean, moved)
        scalars |= combined.scalars
        return Combined(combined.gradients + extra, combined.weights, combined.gramian, scalars)

    def _second_pass(
        self, step: Step, clean: TaskGradients, low: torch.dtype | None
    ) -> tuple[TaskGradients, dict[str, Tensor]]:
        """Differences to the clean rows, and the heads' gradients, at the perturbed points."""
        moved = TaskGradients(step)
        subtrahend = clean.rows, 1 / world_size() if self.sync_perturbation else 1.0
        values = torch.empty_like(step.values)
        every = list(range(len(step.present)))
        with Excursion(step.parameters) as excursion:
            for tasks in [every] if self.perturbation == "joint" else [[i] for i in every]:
                if self.ball.adaptive:  # it looks at the parameters
                    excursion.go([])
                moves = self._moves(clean, tasks)
                self._check_precision(moves, low)
                excursion.go(moves)
                again = step.recompute([step.present[i] for i in tasks])
                again.check_finite()
                moved.take(again, tasks, subtrahend)
                values[tasks] = again.values
        moved.used = [a or b for a, b in zip(moved.used, clean.used, strict=True)]
        return moved, rises(step.present, step.values, values)

    def _moves(self, clean: TaskGradients, tasks: Sequence[int]) -> list[Move]:
        shared = clean.of_shared(tasks[0] if self.perturbation == "per_task" else None)
        return self.ball.moves(shared, *(clean.of_head(i) for i in tasks))

    def _combined(
        self,
        mode: str,
        step: Step,
        balancer: Balancer,
        objectives: Objectives,
        clean: TaskGradients,
        moved: TaskGradients,
    ) -> Combined:
        """Loss rows and flat rows, combined as the mode says."""
        flat = GivenRows(step, moved.rows, used=moved.used)
        flat.norms  # noqa: B018 - raises where a row is not finite
        if mode == "direct":
            clean.rows += moved.rows
        elif mode == "each":
            for loss_row, flat_row in zip(clean.rows, moved.rows, strict=True):
                loss_row.copy_(self._pair(step, torch.stack([loss_row, flat_row])))
        rows = GivenRows(step, clean.rows, heads=moved.heads, used=moved.used)
        loss = objectives.over(rows)
        combined = balancer.combined(loss)
        if mode in ("direct", "each"):
            return combined
        if self._linear(objectives):
            assert combined.weights is not None
            part = flat.weighted(combined.weights)
        else:
            part = self._flat_part(loss, objectives, flat)
        if mode == "second":
            return self._second(step, combined, part)
        part = [(p, self.flat_coef * g) for p, g in part] if self.flat_coef != 1 else part
        whole = Combined(
            combined.gradients + part, combined.weights, combined.gramian, combined.scalars
        )
        return self._finish(step, whole, combined.gradients, part)

    def _linear(self, objectives: Objectives) -> bool:
        """Whether the weights do not depend on gradients: all modes are the same then."""
        return objectives.single or self.flat_combine is None

    def _flat_part(self, loss: Objectives, objectives: Objectives, rows: GivenRows) -> Gradients:
        """`A(f_1, ..., f_m)`, matched in scale."""
        assert self.flat_combine is not None
        flat = objectives.over(rows, learned=False)
        if self.scale_match:
            size, own = (float(_lengths(part).mean()) for part in (loss, flat))
            if own <= _VANISHED * size:
                return []
            flat = objectives.over(rows.times(size / own), learned=False)
        else:
            self._check_degree(flat, objectives.over(rows.times(1e-2), learned=False))
        return self.flat_combine.combine(flat).gradients

    def _second(self, step: Step, combined: Combined, flat: Gradients) -> Combined:
        """`A(loss part, flat part)` for the shared parameters, the rest as it is."""
        shared = {id(p) for p in step.shared}
        dtype = step.values.dtype
        vectors = [join(part, step.shared, dtype) for part in (combined.gradients, flat)]
        whole = cut(self._pair(step, torch.stack(vectors)), step.shared)
        rest = [pair for pair in combined.gradients if id(pair[0]) not in shared]
        result = Combined(whole + rest, combined.weights, combined.gramian, combined.scalars)
        change = whole + [(p, -g) for p, g in cut(vectors[0], step.shared)]
        return self._finish(step, result, combined.gradients, change)

    def _pair(self, step: Step, vectors: Tensor) -> Tensor:
        """The combination of two vectors, `[2, n]`."""
        assert self.flat_combine is not None
        two = Objectives(step).over(GivenRows(step, vectors))
        return join(self.flat_combine.combine(two).gradients, step.shared, vectors.dtype)

    def _finish(self, step: Step, whole: Combined, loss: Gradients, flat: Gradients) -> Combined:
        """Logs the lengths of the parts, and keeps what the steps between need."""
        if self.every > 1 and self.reuse:
            dtype = step.values.dtype
            self._keep(*(join(part, step.shared, dtype) for part in (loss, flat)))
        for name, part in (("loss_norm", loss), ("flat_norm", flat)):
            own = unite(part, step.shared)
            whole.scalars[f"sharpness/{name}"] = length(own, step.values) / step.scale
        return whole

    # ------------------------------------------------------------------------------- warnings

    def _check_precision(self, moves: Sequence[Move], low: torch.dtype | None) -> None:
        """Warns where 16-bit rounding is as large as the perturbation."""
        if low is None or not moves or "precision" in self._told:
            return
        self._told.add("precision")
        relative, rounding = float(relative_size(moves)), torch.finfo(low).eps
        if relative < rounding / 4:
            warnings.warn(
                f"The perturbation is {relative:.1e} of the parameters' length, rounding in {low} "
                f"{rounding:.1e}: the flat part is largely rounding noise. Enlarge the radius, "
                'train in float32, or use combine="direct".',
                RuntimeWarning,
                stacklevel=2,
            )

    def _check_degree(self, flat: Objectives, smaller: Objectives) -> None:
        """Warns where the flat part does not scale with the flat rows."""
        if "degree" in self._told:
            return
        self._told.add("degree")
        lengths = []
        for part in (flat, smaller):
            pairs = copy.deepcopy(self.flat_combine).combine(part).gradients  # type: ignore[union-attr]
            lengths.append(float(torch.stack([g.norm() for _, g in pairs]).norm()))
        if not 0.9 * lengths[0] <= lengths[1] <= 1.1 * lengths[0]:
            warnings.warn(
                f"{type(self.flat_combine).__name__} is not homogeneous of degree one: with "
                "scale_match=False its flat part does not vanish with the radius. Use "
                "scale_match=True.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def _twin(combine: Combiner) -> Combiner:
    """A copy with state and draws of its own; what the optimizer learns is shared."""
    shared: dict[int, Any] = {id(p): p for p in combine.parameters()}
    twin = copy.deepcopy(combine, shared)
    for module in twin.modules():
        if isinstance(module, Stochastic):
            module.seed += 1
    return twin


def _check_stateless(mode: str, combine: Combiner) -> None:
    extra = [
        module
        for module in combine.modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
        and not isinstance(module, Stochastic)
    ]
    plain = isinstance(combine, Weighting | Aggregator) and not extra
    if isinstance(combine, Scalarizer):
        return
    if not plain or any(True for _ in combine.buffers()):
        raise ConfigError(
            f'combine="{mode}" combines other vectors than the tasks\' gradients: it needs a '
            f"weighting or aggregator without state for single tasks. Got "
            f'{type(combine).__name__}. Use combine="decomposed".'
        )


def _lengths(objectives: Objectives) -> Tensor:
    return objectives.gramian.diagonal().clamp_min(0).sqrt()


def _cosines(step: Step, loss: Tensor, flat: Tensor) -> dict[str, Tensor]:
    """Cosine between loss row and flat row of each task, to log."""
    norms = lengths([[row] for row in (*loss, *flat)], loss)
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    rows = zip(step.present, loss, flat, *inverse.chunk(2), strict=True)
    return {f"sharpness/cosine/{n}": torch.dot(a * i, b * j) for n, a, b, i, j in rows}


def _precision(step: Step) -> torch.dtype | None:
    """The 16-bit type that the model computes in, if it does."""
    inside = [t for tensors in (step.representation or {}).values() for t in tensors]
    for tensor in (*inside, *step.shared):
        if tensor.dtype in (torch.bfloat16, torch.float16):
            return tensor.dtype
    return None
