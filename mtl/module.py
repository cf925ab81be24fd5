"""The Lightning module: any Trainer flag with any balancer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection

from mtl.balancer import Balancer, Report
from mtl.errors import ConfigError, UnsupportedError
from mtl.model import MultiTaskModel, optimizer_groups
from mtl.parts import Needs, Stochastic
from mtl.resume import check_resumable
from mtl.sharding import check_sharded, clip, gather, is_sharded, scatter, shard
from mtl.step import Step
from mtl.task import Task, check_tasks

Batch = tuple[Any, Mapping[str, Tensor]]


class MTLModule(lightning.LightningModule):
    """A multi-task model, its tasks and a balancer, under automatic optimization.

    The balancer runs where Lightning would call `loss.backward()`: clipping, accumulation, mixed
    precision, schedulers, checkpoints and profilers work with every balancer.

    Args:
        model: A `MultiTaskModel`, or a module that answers the same questions.
        tasks: The tasks, in the order of rows.
        balancer: Default: equal weighting.
        optimizer: From parameter groups to an optimizer. Default: Adam at 1e-3. Modules with
            `optimizer_options` have groups of their own (see `mtl.model.optimizer_groups`);
            parameters that the balancer learns form the last group, without weight decay.
        scheduler: From the optimizer to a learning-rate scheduler, stepped once an epoch.
        config: A plain dict that is saved in every checkpoint, to tell how the run was made.

    A batch is `(inputs, targets)`: `targets` maps task names to labels; `inputs` is what the
    backbone takes, or a mapping from task names to inputs of their own.

    Logged: every `log_every_n_steps` `train/loss/<task>`, `balancer/weight/<task>` and
    `balancer/skipped_steps`; after an evaluation `<stage>/loss/<task>` and
    `<stage>/<metric>/<task>`, where the stage is `val` or `test`, and `<stage>/<metric>/mean` of a
    metric that all tasks have.

    Raises:
        TaskError: Duplicate task names, or none.

    Attributes:
        report: What the balancer did in the last step.
        results: Stage -> task -> metric -> value, of the last evaluation.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        tasks: Sequence[Task],
        balancer: Balancer | None = None,
        *,
        optimizer: Callable[[Any], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tasks = check_tasks(tasks)
        self.balancer = Balancer() if balancer is None else balancer
        self.val_metrics = _collections(self.tasks)
        self.test_metrics = _collections(self.tasks)
        self.report: Report | None = None
        self.results: dict[str, dict[str, dict[str, float]]] = {}
        self.step: Step | None = None
        self._optimizer = optimizer or partial(torch.optim.Adam, lr=1e-3)
        self._scheduler = scheduler
        self._config = config
        self._surrogate: Tensor | None = None
        self._used_step: Step | None = None

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """Predictions by task name."""
        return self.model(inputs).predictions

    # ---------------------------------------------------------------------------------- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Builds the step; its losses are differentiated by the balancer in `backward`."""
        self.step = Step.evaluate(
            self.model,
            self.tasks,
            batch,
            needs=self.balancer.needs,
            together=self.balancer.together(self._names),
            context=self.trainer.precision_plugin.train_step_context,
        )
        self.step.observed = self._due
        self._surrogate = self.step.values.detach().sum().requires_grad_()
        return self._surrogate

    def backward(self, loss: Tensor) -> None:
        """Lets the balancer write the gradients; `loss` brings 1/accumulation and the AMP scale."""
        assert self.step is not None
        assert self._surrogate is not None
        (scale,) = torch.autograd.grad(loss, self._surrogate)
        self.step.scale = scale
        self.step.progress = self._progress()
        self.report = self.balancer.backward(self.step)
        after = Needs.AFTER_STEP in self.balancer.needs and not self.report.nonfinite
        self._used_step = self.step if after else None
        self.step = None  # frees the graph
        if self.report.nonfinite:
            self._tell_nonfinite(self.report.nonfinite)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then tells the balancer, before callbacks save what it has learned."""
        super().optimizer_step(*args, **kwargs)
        step, self._used_step = self._used_step, None
        if step is not None:
            self.balancer.after_step(step)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does it, also where only some of the parameters are sharded."""
        if not gradient_clip_val or not is_sharded(self.model.parameters()):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        clip(parameters, gradient_clip_val, by_norm=gradient_clip_algorithm != "value")

    def _progress(self) -> float | None:
        """Share of the training that is done; not known where it has no end."""
        total = self.trainer.estimated_stepping_batches
        return self.trainer.global_step / total if math.isfinite(total) else None

    def _tell_nonfinite(self, tasks: tuple[str, ...]) -> None:
        rank_zero_warn(
            f"Step {self.trainer.global_step}: the loss or gradient of {', '.join(tasks)} is not "
            "finite; the step was skipped "
            f"({int(self.balancer.skipped_steps)} so far in this run).",
            category=RuntimeWarning,
        )
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            # The gradient scaler must see the overflow: it skips the step and lowers its scale.
            parameter = next(p for p in self.parameters() if p.requires_grad)
            parameter.grad = torch.full_like(parameter, torch.inf)

    def configure_model(self) -> None:
        """Shards the model where the strategy says between which processes (`trainer=fsdp`).

        Raises:
            UnsupportedError: The strategy asks for tensor parallelism.
        """
        mesh = self.device_mesh
        if mesh is None:
            return
        if mesh["tensor_parallel"].size() > 1:
            raise UnsupportedError(
                "Expected a strategy without tensor parallelism. Got "
                f"tensor_parallel_size={mesh['tensor_parallel'].size()}. "
                "Use trainer=fsdp (mtl.strategy.FSDP2Strategy)."
            )
        shard(self.model, mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Leaves the exchange of gradients between processes to the step.

        Raises:
            UnsupportedError: The balancer does not work with the strategy.
        """
        strategy = self.trainer.strategy
        if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
            raise UnsupportedError(
                f"Expected a strategy that leaves parameters whole, or FSDP2. Got "
                f"{type(strategy).__name__}. Use trainer=fsdp (mtl.strategy.FSDP2Strategy), or "
                "trainer=ddp."
            )
        if is_sharded(self.model.parameters()):
            check_sharded(self.balancer, self.model, len(self.tasks))
        wrapper = strategy.model
        if isinstance(wrapper, DistributedDataParallel):
            wrapper.require_backward_grad_sync = False
        for part in self.balancer.modules():
            if isinstance(part, Stochastic):
                part.seed = strategy.broadcast(part.seed)

    def on_train_epoch_start(self) -> None:
        """Tells the balancer."""
        self.balancer.on_epoch_start(self.current_epoch)

    def on_after_backward(self) -> None:
        """Logs losses and weights, in time for what callbacks read at the end of the batch.

        In the steps that Lightning passes on to loggers, and the first: each entry costs time.
        """
        report = self.report
        if not self._due or report is None or report.losses is None:
            return
        scalars = {"balancer/skipped_steps": self.balancer.skipped_steps.float()}
        for i, name in enumerate(report.tasks):
            scalars[f"train/loss/{name}"] = report.losses[i]
            if report.weights is not None:
                scalars[f"balancer/weight/{name}"] = report.weights[i]
        scalars |= {f"balancer/{name}": value for name, value in report.scalars.items()}
        self.log_dict(scalars, on_step=True, on_epoch=False, batch_size=1)

    @property
    def _due(self) -> bool:
        step = self.trainer.global_step
        return step == 0 or (step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        """The optimizer over the model's parameters and, in a last group, the balancer's."""
        groups = [*optimizer_groups(self.model), *self.balancer.parameter_groups()]
        try:
            optimizer = self._optimizer(groups)
            if self._scheduler is None:
                return optimizer
            return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer)}
        except (TypeError, ValueError) as error:
            options = [getattr(part, "keywords", {}) for part in (self._optimizer, self._scheduler)]
            raise ConfigError(
                f"`optimizer` or `scheduler` cannot be made of {options}: {error}."
            ) from error

    # -------------------------------------------------------------------------------- evaluation

    def on_validation_start(self) -> None:
        """Makes sharded parameters whole: processes may have different numbers of batches."""
        gather(self.model)

    def on_test_start(self) -> None:
        """As for a validation."""
        gather(self.model)

    def on_validation_end(self) -> None:
        """Shards them again."""
        scatter(self.model)

    def on_test_end(self) -> None:
        """As for a validation."""
        scatter(self.model)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Updates the validation metrics."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Updates the test metrics."""
        self._evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Logs and resets the validation metrics."""
        self._finish("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Logs and resets the test metrics."""
        self._finish("test", self.test_metrics)

    def _evaluate(self, batch: Batch, metrics: nn.ModuleDict) -> None:
        inputs, targets = batch
        predictions = self(inputs)
        for task in self.tasks:
            if task.name in targets and task.name in predictions:
                loss, count = task.evaluate(predictions[task.name], targets[task.name])
                own = cast("_TaskMetrics", metrics[task.name])
                own.loss.update(loss, count)
                task.update(own.metrics, predictions[task.name], targets[task.name])

    def _finish(self, stage: str, metrics: nn.ModuleDict) -> None:
        results = {}
        for task in self.tasks:
            own = cast("_TaskMetrics", metrics[task.name])
            values = {**own.metrics.compute(), "loss": own.loss.compute()}
            results[task.name] = {key: float(value) for key, value in values.items()}
            own.metrics.reset()
            own.loss.reset()
        scalars = {
            f"{stage}/{key}/{name}": value
            for name, values in results.items()
            for key, value in values.items()
        }
        for key in _common(task.metrics for task in self.tasks):
            mean = fmean(values[key] for values in results.values())
            scalars.setdefault(f"{stage}/{key}/mean", mean)
        self.log_dict(scalars, rank_zero_only=False, batch_size=1)
        self.results[stage] = results

    # ------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names of the tasks and the configuration, as plain data."""
        checkpoint["tasks"] = self._names
        if self._config is not None:
            checkpoint["config"] = self._config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint is of these tasks, this model and this balancer."""
        check_resumable(checkpoint, self._names, self._config)

    @property
    def _names(self) -> list[str]:
        return [task.name for task in self.tasks]


class _MeanLoss(Metric):
    """Mean over labelled elements of all batches and processes."""

    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, count: Tensor) -> None:
        self.total += torch.where(count > 0, loss * count, 0.0)
        self.count += count

    def compute(self) -> Tensor:
        return self.total / self.count


class _TaskMetrics(nn.Module):
    """A task's own copies of its metrics, and its mean loss."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.metrics = MetricCollection({key: m.clone() for key, m in task.metrics.items()})
        self.loss = _MeanLoss()


def _common(metrics: Iterable[Mapping[str, Metric]]) -> list[str]:
    """Names of the metrics that all tasks have."""
    names = [list(own) for own in metrics]
    return [name for name in names[0] if all(name in own for own in names)]


def _collections(tasks: Sequence[Task]) -> nn.ModuleDict:
    return nn.ModuleDict({task.name: _TaskMetrics(task) for task in tasks})
