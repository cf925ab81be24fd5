"""What fills the slots of a balancer: small classes with one method to write.

| slot | base class | the method to write |
|---|---|---|
| transforms | `Transform` | `forward(losses) -> losses` |
| combine | `Scalarizer` | `forward(losses) -> scalar` |
| combine | `Weighting` | `forward(gramian) -> weights` |
| combine | `Aggregator` | `forward(jacobian) -> direction` |
| regularizers | `Regularizer` | `forward(step) -> scalar` |
| sharpness | `Sharpness` | `forward(step, balancer) -> combined` |

State lives in buffers and parameters that are allocated in the constructor, so that checkpoints
resume exactly; parameters are learned by the optimizer, in a group of their own.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mtl.balancer import Balancer
    from mtl.distributed import Held
    from mtl.engine import Combined, Objectives
    from mtl.step import Step

T = TypeVar("T")


class Needs(Flag):
    """What a part asks of a step, beyond the losses."""

    LOSSES = 0
    GRAMIAN = auto()
    JACOBIAN = auto()
    REPRESENTATION = auto()
    SALIENCY = auto()
    RECOMPUTE = auto()
    AFTER_STEP = auto()


class Part(nn.Module, ABC):
    """Base of everything that fills a slot.

    Attributes:
        needs: What the part asks of a step.
        present: Index of the tasks that have labels in this step; a state with one entry a task
            is read as `state[self.present]`. `slice(None)` where all are present.
        learning_rate: Of the parameters that the part learns; `None`: that of the model.
    """

    needs: ClassVar[Needs] = Needs.LOSSES
    present: slice | Tensor = slice(None)
    learning_rate: float | None = None

    @property
    def compares(self) -> bool:
        """Whether the next step takes gradients of objectives one by one."""
        parts = (module for module in self.modules() if isinstance(module, Part))
        return any(part.needs & (Needs.GRAMIAN | Needs.JACOBIAN) for part in parts)

    def on_epoch_start(self, epoch: int) -> None:
        """Called before each epoch's first step, with its number from 0; repeated on resume."""

    def after_step(self, step: Step) -> None:
        """Called when the optimizer has stepped, if `needs` has `AFTER_STEP`.

        Under accumulation it gets the last part of the batch. `step.values` are the losses before
        the step, `step.values_now()` those at the present parameters.
        """


class Transform(Part):
    """A differentiable map of the losses, `[a] -> [k]`, for any combiner by the chain rule.

    Attributes:
        elementwise: Value i depends on loss i alone.
    """

    elementwise: ClassVar[bool] = False

    @abstractmethod
    def forward(self, losses: Tensor) -> Tensor:
        """Maps the losses of the present tasks, `[a]`, to objectives, `[k]`."""

    def outputs(self) -> slice | Tensor:
        """Index of the objectives that there are in this step, among all that there can be.

        What follows finds it in `present`. An `elementwise` transform keeps the index.
        """
        return self.present if self.elementwise else slice(None)

    def merge(self, groups: Sequence[Sequence[T]]) -> list[list[T]]:
        """Groups of tasks whose losses make one objective each.

        Args:
            groups: The groups before this transform, in the order of its inputs.

        Returns:
            One group an output where outputs are made of separate inputs; otherwise the groups
            as they are.
        """
        return [list(group) for group in groups]


class Combiner(Part):
    """Turns several objectives into one gradient; use one of the three kinds below.

    Attributes:
        head_grad: Whether a head follows its `own` objective or the `weighted` one, unless the
            balancer says otherwise.
    """

    head_grad: ClassVar[str] = "own"

    @abstractmethod
    def combine(self, objectives: Objectives) -> Combined:
        """Gradients of all parameters."""


class Scalarizer(Combiner):
    """Losses to a scalar: one backward pass, heads weighted like the rest."""

    head_grad: ClassVar[str] = "weighted"

    @abstractmethod
    def forward(self, losses: Tensor) -> Tensor:
        """Maps the objectives, `[k]`, to the scalar that is minimized."""

    def combine(self, objectives: Objectives) -> Combined:
        """Differentiates the scalar."""
        return objectives.minimize(self(objectives.values))


class Weighting(Combiner):
    """Gramian of the objectives' gradients to weights: one backward pass an objective."""

    needs: ClassVar[Needs] = Needs.GRAMIAN

    @abstractmethod
    def forward(self, gramian: Tensor) -> Tensor:
        """Maps the Gramian, `[k, k]`, to weights, `[k]`."""

    def combine(self, objectives: Objectives) -> Combined:
        """Weighs the gradients."""
        return objectives.weigh(self(objectives.gramian))


class Aggregator(Combiner):
    """Jacobian of the objectives to a direction: one backward pass an objective.

    Attributes:
        columnwise: Each entry of the direction depends on its own column, and on few numbers that
            are summed over all columns (`mtl.aggregation.columns.over_all_columns`): with several
            processes each sees a part of the columns, and the Jacobian need not travel whole.
        held: Which columns `forward` sees, where it does not see all.
    """

    needs: ClassVar[Needs] = Needs.JACOBIAN
    columnwise: ClassVar[bool] = False
    held: Held | None = None

    @abstractmethod
    def forward(self, jacobian: Tensor) -> Tensor:
        """Maps the Jacobian, `[k, n]`, to the direction of the shared parameters, `[n]`."""

    def combine(self, objectives: Objectives) -> Combined:
        """Follows the direction."""
        objectives.gramian  # noqa: B018 - raises where a row is not finite
        if not self.columnwise:
            return objectives.follow(self(objectives.jacobian))
        self.held = objectives.held
        return objectives.follow(self(objectives.columns), held=True)


class Regularizer(Part):
    """A scalar of the step that is added to the objective, after the combination.

    Attributes:
        local: Whether it depends on which samples share a process, and not only on their union.
    """

    local: ClassVar[bool] = False

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The scalar, with graph. Under several processes it is averaged over them."""


class Sharpness(Part):
    """Wraps the whole balancer to evaluate gradients at other points than the present one."""

    needs: ClassVar[Needs] = Needs.RECOMPUTE

    @abstractmethod
    def forward(self, step: Step, balancer: Balancer) -> Combined:
        """Gradients of a step.

        Args:
            step: At the present parameters.
            balancer: `balancer.gradients(step)` is what it gives without this part;
                `balancer.objectives` and `balancer.combined` are the two halves of that.
        """

    def wrap(self, balancer: Balancer) -> None:
        """Called once by the balancer that this becomes a part of, to check that both fit."""

    def describe(self, num_tasks: int) -> str:  # noqa: ARG002
        """What it adds to the cost of a step, in words."""
        return f"{type(self).__name__} evaluates the batch again"


class Stochastic(nn.Module):
    """Mix-in for parts that draw: same draws in every process and after a resume.

    Each call of `generator` gives a fresh generator, a pure function of (seed, class, number of
    calls so far); the three are saved with the state.

    Args:
        seed: Default: the seed that `torch.manual_seed` (or Lightning's `seed_everything`) got.
            `MTLModule` gives all processes the first one's.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.seed = torch.initial_seed() if seed is None else seed
        self.draws = 0

    def generator(self, device: torch.device) -> torch.Generator:
        """A generator for one draw."""
        stream = zlib.crc32(type(self).__name__.encode())
        mixed = (self.seed + stream) * 0x9E3779B97F4A7C15 + self.draws * 0xD1B54A32D192ED03
        self.draws += 1
        return torch.Generator(device).manual_seed(mixed % 2**63)

    def get_extra_state(self) -> dict[str, int]:
        """Seed and number of draws."""
        return {"seed": self.seed, "draws": self.draws}

    def set_extra_state(self, state: Any) -> None:
        """Continues the saved sequence of draws."""
        self.seed, self.draws = state["seed"], state["draws"]
