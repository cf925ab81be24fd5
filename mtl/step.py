"""What can be known of one training step, each thing computed at most once and only when asked.

All backward passes start here: `gradient` (one of a weighted sum; `backward` where parameters are
sharded) and `rows` (one an objective). They multiply by `scale` and combine processes, so that N
processes give what one process computes on the concatenated batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mtl.distributed import all_reduce, all_reduce_list, world_size
from mtl.errors import NonFiniteError, TaskError, UnsupportedError
from mtl.evaluation import Context, Evaluation
from mtl.factors import Factor, LinearCall, pays, separable_calls
from mtl.linalg.product import Product
from mtl.model import MultiTaskModel
from mtl.parts import Needs
from mtl.products import at_parameters, at_representation
from mtl.replay import Replay
from mtl.rows import Products, Rows
from mtl.second_order import InputGradients, Pointwise
from mtl.task import Task

Level = Literal["parameters", "representation"]
Engine = Literal["auto", "rows", "gramian"]


class _Summary(NamedTuple):
    """The losses of the global batch, `a` of them present."""

    values: Tensor  # [a] mean over the labelled elements of all processes
    share: Tensor | None  # [a] part of those elements that this process holds; None: all
    present: tuple[int, ...]  # tasks with a label in some process
    nonfinite: tuple[int, ...]
    negative: tuple[int, ...]
    here: tuple[int, ...]  # tasks with a label in this process


class Step:
    """The losses of one batch and what they can be differentiated by.

    Args:
        losses: Task name -> scalar loss with graph (a mean over labelled elements), or `None` for
            a task without labels in this batch. The order is the order of rows everywhere.
        shared: Parameters that receive gradient from more than one task.
        specific: Task name -> parameters of that task alone.
        representation: Task name -> tensors in the graph at which the task's head attaches.
        predictions: Task name -> output of the head, if the loss depends on the rest of the model
            through it alone.
        counts: Task name -> number of labelled elements behind each loss; with N processes their
            losses are averaged by it. Default: alike in all processes.
        recompute: Gives the Step of the same batch at the present parameters, with the same
            random draws and without touching buffers.
        tied: Shared parameters behind the representation (in heads).
        scale: Factor on every gradient: 1/N under accumulation, the AMP scale.
        linear_calls: Evaluations of linear layers, to keep rows as factors where that is cheaper.
        sharded: Whether processes hold parts of the parameters (FSDP2).
        input_gradients: Tells layers of the heads when parameters need no gradient.
        pointwise: Task name -> the 1x1 convolution that is the whole head.

    Attributes:
        scalars: What parts leave to be logged, by name.
        observed: Whether it will be logged, so that parts may spend time on it.
        memo: What parts have computed and others may use, until the gradients are there.
        progress: Share of the training that is done, 0 to 1, for parts that start late; a
            hand-written loop sets it before `balancer.backward`. `None`: not known.
        training: Whether the model was in train mode.

    Reading `values` (or anything that depends on it) moves 3m numbers to the host, once a step:
    which tasks are present and finite decides what is computed next.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor | None],
        *,
        shared: Sequence[Tensor],
        specific: Mapping[str, Sequence[Tensor]] | None = None,
        representation: Mapping[str, Sequence[Tensor]] | None = None,
        predictions: Mapping[str, Tensor] | None = None,
        counts: Mapping[str, Tensor] | None = None,
        recompute: Callable[[], Step] | None = None,
        tied: Sequence[Tensor] = (),
        scale: Tensor | float = 1.0,
        linear_calls: Sequence[LinearCall] = (),
        sharded: bool = False,
        input_gradients: InputGradients | None = None,
        pointwise: Mapping[str, Pointwise] | None = None,
    ) -> None:
        self.tasks = tuple(losses)
        self.losses = dict(losses)
        self.shared = list(shared)
        self.specific = {name: list((specific or {}).get(name, ())) for name in self.tasks}
        self.representation = representation
        self.predictions = dict(predictions or {})
        self.scale = scale
        self.progress: float | None = None
        self.training = True
        self._counts = counts
        self._recompute = recompute
        self.tied = list(tied)
        self.scalars: dict[str, Tensor] = {}
        self.observed = False
        self._rows: dict[tuple[Level, Engine], Products] = {}
        self.memo: dict[Any, Any] = {}
        self._linear_calls = list(linear_calls)
        self.sharded = sharded
        self._input_gradients = input_gradients or InputGradients()
        self._pointwise = dict(pointwise or {})
        for name, loss in self.losses.items():
            if loss is not None and torch.is_grad_enabled() and not loss.requires_grad:
                raise TaskError(
                    f"The loss of task {name!r} depends on no trainable parameter: expected a "
                    "loss with a graph. Check that head and backbone are not frozen and that the "
                    "loss is not detached."
                )

    @classmethod
    def evaluate(
        cls,
        model: MultiTaskModel,
        tasks: Sequence[Task],
        batch: tuple[Any, Mapping[str, Tensor]],
        *,
        needs: Needs = Needs.LOSSES,
        together: Sequence[Sequence[str]] | None = None,
        context: Context = contextlib.nullcontext,
    ) -> Step:
        """Runs the model on a batch and takes the losses.

        Args:
            model: Gives `Outputs` and its parameters.
            tasks: The tasks, in the order of rows.
            batch: `(inputs, targets)`; `targets` maps task names to labels. A task that is missing
                there, or whose labels are all invalid, is absent from this step.
            needs: What the balancer will ask (`balancer.needs`): to evaluate again, the state of
                the random generators is kept; for a Gramian at the parameter level, linear layers
                are noted, so that it can be had without forming their rows.
            together: Groups of tasks that go through the backbone at once, where every task has
                its own inputs and the model `joins` them (`balancer.together(names)`).
            context: Precision context in which forward passes run.

        Raises:
            TaskError: A batch without any known task, or shapes that do not fit.
        """
        evaluation = Evaluation(cls, model, tasks, batch, needs, together, context)
        if not needs & (Needs.RECOMPUTE | Needs.AFTER_STEP):
            return evaluation(None)
        replay = Replay(evaluation, model)
        step = evaluation(replay)
        evaluation.separable = Needs.RECOMPUTE in needs and not replay.drawn
        return step

    # ---------------------------------------------------------------- what is known of the losses

    @cached_property
    def present(self) -> tuple[str, ...]:
        """Names of the tasks with labels in this step (in any process), in task order."""
        return tuple(self.tasks[i] for i in self._summary.present)

    @property
    def values(self) -> Tensor:
        """Losses of the present tasks on the global batch, detached, `[a]`."""
        return self._summary.values

    @property
    def all_finite(self) -> bool:
        """Whether the losses of all present tasks are finite."""
        return not self._summary.nonfinite

    def check_finite(self) -> None:
        """Raises `NonFiniteError` naming the tasks whose loss is NaN or infinite."""
        if self._summary.nonfinite:
            raise NonFiniteError(*(self.tasks[i] for i in self._summary.nonfinite))

    @cached_property
    def _summary(self) -> _Summary:
        losses = [self.losses[name] for name in self.tasks]
        like = next(t for t in (*losses, *self.parameters) if t is not None).detach()
        dtype = torch.promote_types(like.dtype, torch.float32)
        precise = dtype if like.device.type == "mps" else torch.float64
        zero = torch.zeros((), dtype=precise, device=like.device)
        values = torch.stack([zero if loss is None else loss.detach() for loss in losses]).to(zero)
        counts = torch.stack([self._count(name, zero) for name in self.tasks]).to(zero)
        share, here = None, counts
        if world_size() > 1:
            # An absent task's loss may be anything; it must not turn the sum into NaN.
            totals = all_reduce(torch.cat([torch.where(counts > 0, values * counts, 0.0), counts]))
            sums, total = totals.chunk(2)
            share, values = counts / total.clamp_min(1), sums / total.clamp_min(1)
            counts = total
        host_values, host_counts, host_here = torch.stack([values, counts, here]).tolist()
        present = tuple(i for i, count in enumerate(host_counts) if count > 0)
        if len(present) < len(self.tasks):
            values = values[list(present)]
            share = None if share is None else share[list(present)]
        return _Summary(
            values.to(dtype),
            None if share is None else share.to(dtype),
            present,
            tuple(i for i in present if not math.isfinite(host_values[i])),
            tuple(i for i in present if host_values[i] < 0),
            tuple(i for i in present if host_here[i] > 0),
        )

    def _count(self, name: str, zero: Tensor) -> Tensor:
        if self.losses[name] is None:
            return zero
        return zero + 1 if self._counts is None else self._counts[name]

    # ------------------------------------------------------------------------- differentiation

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters: shared first, then each task's own in task order."""
        return self.shared + [p for name in self.tasks for p in self.specific[name]]

    def gradient(
        self, weights: Tensor | None, extra: Sequence[Tensor] = (), *, retain_graph: bool = False
    ) -> list[Tensor | None]:
        """Gradient of `sum_i weights[i] * loss_i + sum(extra)`, by one backward pass.

        Args:
            weights: One weight a present task, `[a]`; `None` leaves the losses out.
            extra: Scalars defined on the local batch (regularizers); averaged over processes.
            retain_graph: Keep the graph for another pass.

        Returns:
            One gradient for each of `parameters`, times `scale`, summed over processes; `None`
            where nothing depends.

        Raises:
            UnsupportedError: The parameters are sharded.
        """
        if self.sharded:
            raise UnsupportedError(
                "Gradients of sharded parameters only go to `.grad`. Use Step.backward, or "
                "strategy=ddp, which leaves parameters whole."
            )
        parameters = self.parameters
        cotangents = None if weights is None else self.cotangents(weights)
        gradients = self.differentiate(
            cotangents, parameters, extra=extra, retain_graph=retain_graph
        )
        return all_reduce_list(gradients, parameters)

    def backward(
        self,
        weights: Tensor | None,
        extra: Sequence[Tensor] = (),
        *,
        replaced: Sequence[tuple[Tensor, Tensor]] = (),
        retain_graph: bool = False,
    ) -> None:
        """Adds the gradient of a sum to `.grad` by an ordinary backward pass (sharded parameters).

        Args:
            weights: See `gradient`.
            extra: See `gradient`.
            replaced: Tensors on the way with the gradient that goes on from there instead of the
                sum's: this process's part, times `scale`.
            retain_graph: Keep the graph for another pass.
        """
        cotangents = None if weights is None else self.cotangents(weights)
        outputs, factors = self._sum(cotangents, extra)
        if not outputs:
            return
        average = world_size()  # what the hooks of sharded parameters divide by
        handles = [t.register_hook(lambda _, g=g: g * average) for t, g in replaced]
        try:
            torch.autograd.backward(outputs, [f * average for f in factors], retain_graph)
        finally:
            for handle in handles:
                handle.remove()

    def rows(self, level: Level = "parameters", *, retain_graph: bool = True) -> Rows:
        """Gradients of the losses one by one, computed once.

        Args:
            level: Columns are the shared parameters, or the elements of the representation.
            retain_graph: Keep the graph for another pass.
        """
        key: tuple[Level, Engine] = (level, "rows")
        found = self._rows.get(key)
        if not isinstance(found, Rows):
            found = self._rows[key] = Rows(self, level, retain_graph=retain_graph)
        return found

    def products(
        self, level: Level = "parameters", *, engine: Engine = "auto", retain_graph: bool = True
    ) -> Products:
        """What gives the Gramian of the losses' gradients and combines them, computed once.

        Args:
            level: See `rows`.
            engine: `rows`: as `rows`. `auto`: gradients of linear layers (at the representation:
                those behind linear heads) stay factors where that is cheaper; `gramian`: wherever
                it is exact.
            retain_graph: Keep the graph for another pass.
        """
        if engine == "rows" or (level, "rows") in self._rows:
            return self.rows(level, retain_graph=retain_graph)
        key = (level, engine)
        if key not in self._rows:
            make = at_parameters if level == "parameters" else at_representation
            self._rows[key] = make(self, engine, retain_graph=retain_graph)
        return self._rows[key]

    def common_representation(self) -> Tensor | None:
        """The tensor at which the heads of all present tasks attach, if it is one."""
        attached = [(self.representation or {}).get(name, ()) for name in self.present]
        tensors = {id(t): t for own in attached for t in own}
        if len(tensors) != 1 or not all(attached):
            return None
        (tensor,) = tensors.values()
        return tensor if tensor.requires_grad else None

    @cached_property
    def separable_layers(self) -> list[LinearCall]:
        """Linear layers whose gradients follow from their input and output.

        None with several processes: the Gramian of an average has products between processes,
        which factors of one process do not give.
        """
        if not self._linear_calls or world_size() > 1:
            return []
        losses = [loss for loss in self.losses.values() if loss is not None]
        return separable_calls(self._linear_calls, losses, self.shared)

    def factors(self, rows: int, engine: Engine = "auto") -> list[Factor]:
        """Linear layers whose rows are kept as factors, for so many rows; see `products`."""
        if engine == "rows":
            return []
        always = engine == "gramian"
        return [Factor(call, rows) for call in self.separable_layers if always or pays(call, rows)]

    def saliencies(
        self, log_eps: float | None = None, *, factored: bool = False
    ) -> dict[str, tuple[Tensor | Product, ...]]:
        """Gradients of the tasks' local losses at the representation, with a graph; kept.

        They come by one backward pass through each head; the backbone is not entered. What is
        differentiated further has its second derivatives in the heads alone.

        Args:
            log_eps: Gradients of `log(loss + log_eps)`; `None`: of the losses.
            factored: Where the head is a 1x1 convolution with fewer outputs than inputs, give the
                product of its weight and the gradient at its output.

        Returns:
            Task name -> gradient by each of the tensors at which its head attaches, times `scale`,
            which keeps half precision from underflow. Tasks without labels here are left out.

        Raises:
            NonFiniteError: The logarithm of a negative loss is asked for.
            UnsupportedError: The step has no representation that depends on trainable parameters.
        """
        if log_eps is not None and self._summary.negative:
            raise NonFiniteError(*(self.tasks[i] for i in self._summary.negative))
        key = ("saliencies", log_eps, factored)
        if key not in self.memo:
            names = [self.tasks[i] for i in self._summary.here]
            self.memo[key] = {name: self._saliency(name, log_eps, factored) for name in names}
        return self.memo[key]

    def _saliency(
        self, name: str, log_eps: float | None, factored: bool
    ) -> tuple[Tensor | Product, ...]:
        tensors = (self.representation or {}).get(name, ())
        if not tensors or not all(t.requires_grad for t in tensors):
            raise UnsupportedError(
                f"Task saliency needs a representation of task {name!r} that depends on trainable "
                "parameters. Use a MultiTaskModel with a backbone that is not frozen, or pass "
                "`representation` to Step."
            )
        loss = self.losses[name]
        assert loss is not None
        objective = loss if log_eps is None else torch.log(loss + log_eps)
        head = self._pointwise.get(name) if factored else None
        with self._input_gradients():
            gradients = torch.autograd.grad(
                objective,
                tensors if head is None else [head.output],
                torch.ones_like(objective) * self.scale,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return gradients if head is None else (Product(head.weight.mT, gradients[0]),)

    def release(self) -> None:
        """Forgets the rows; they refer to the step, and would wait for the garbage collector."""
        self._rows.clear()
        self.memo.clear()

    def forget(self) -> None:
        """Forgets rows and graph, where other passes follow; losses stay as numbers."""
        self.release()
        self._linear_calls.clear()
        self.__dict__.pop("separable_layers", None)
        self._pointwise.clear()
        self.representation = None
        self.predictions = {}
        self.losses = {k: None if v is None else v.detach() for k, v in self.losses.items()}

    def cotangents(self, weights: Tensor | None = None) -> list[Tensor]:
        """For each present task the factor on its local loss: weight, share and `scale`.

        Args:
            weights: `[a]`. Default: ones.
        """
        factors = torch.ones_like(self.values) if weights is None else weights.detach()
        if self._summary.share is not None:
            factors = factors * self._summary.share
        return list((factors * self.scale).unbind())

    def differentiate(
        self,
        cotangents: Sequence[Tensor] | None,
        inputs: Sequence[Tensor],
        *,
        among: Sequence[int] | None = None,
        extra: Sequence[Tensor] = (),
        retain_graph: bool,
    ) -> list[Tensor | None]:
        """This process's part of the gradient of a weighted sum of losses, times `scale`.

        Args:
            cotangents: What `cotangents` gives; `None` leaves the losses out.
            inputs: What to differentiate by.
            among: Positions of the present tasks that take part. Default: all.
            extra: Scalars added to the sum.
            retain_graph: Keep the graph for another pass.
        """
        outputs, factors = self._sum(cotangents, extra, among)
        if not outputs or not inputs:
            return [None] * len(inputs)
        return list(
            torch.autograd.grad(
                outputs, inputs, factors, retain_graph=retain_graph, allow_unused=True
            )
        )

    def _sum(
        self,
        cotangents: Sequence[Tensor] | None,
        extra: Sequence[Tensor],
        among: Sequence[int] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The terms of a weighted sum, and what each is multiplied by."""
        outputs, factors = [], []
        if cotangents is not None:
            for position in range(len(self.present)) if among is None else among:
                loss = self.losses[self.present[position]]
                if loss is not None:
                    outputs.append(loss)
                    factors.append(cotangents[position].to(loss.dtype))
        scalars, ones = self.with_gradient(extra)
        return outputs + scalars, factors + ones

    def with_gradient(self, extra: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Those of the scalars that have a gradient (not so if all is frozen below), and factors.

        Args:
            extra: Scalars defined on the local batch.
        """
        scalars = [e for e in extra if e.requires_grad]
        return scalars, [torch.ones_like(e) * (self.scale / world_size()) for e in scalars]

    def recompute(self, only: Collection[str] | None = None) -> Step:
        """The Step of the same batch at the present parameters.

        Same random draws as in the first evaluation; buffers (running statistics, counters) are
        left as they were.

        Args:
            only: Names of tasks; the others are absent. Default: all.

        Raises:
            UnsupportedError: The Step was built without `needs` or `recompute`.
        """
        if self._recompute is None:
            raise UnsupportedError(
                "This step cannot be recomputed. Build it with Step.evaluate(..., "
                "needs=balancer.needs), or pass `recompute` to Step."
            )
        again = self._recompute(only) if isinstance(self._recompute, Replay) else self._recompute()
        if only is not None:
            again.losses = {k: v if k in only else None for k, v in again.losses.items()}
        again.scale, again.observed = self.scale, self.observed
        again.progress = self.progress
        return again

    @torch.no_grad()
    def values_now(self) -> Tensor:
        """Losses of the present tasks at the present parameters, `[a]`, without a graph."""
        return self.recompute().values
