"""The outlier gate: every task mixes the experts in its own proportion, which it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl.errors import ConfigError
from mtl.models.sharing import HardSharing


class Experts(nn.Module):
    """Several backbones side by side, `x -> (E_0(stem(x)), ..., E_{K-1}(stem(x)))`.

    Args:
        experts: The backbones, of one output shape, with different initial weights.
        stem: A common part before them. Default: none.
    """

    def __init__(self, experts: Sequence[nn.Module], *, stem: nn.Module | None = None) -> None:
        super().__init__()
        if len(experts) < 2:
            raise ConfigError(f"Expected at least 2 experts. Got {len(experts)}.")
        self.stem = nn.Identity() if stem is None else stem
        self.experts = nn.ModuleList(experts)
        self.out_channels = experts[0].out_channels

    def forward(self, inputs: Any) -> tuple[Any, ...]:
        """The output of every expert."""
        features = self.stem(inputs)
        return tuple(expert(features) for expert in self.experts)


class Gate(nn.Module):
    """Proportions of a task in the experts, `p = softmax([0, theta])`, `theta` in `R^(K-1)`.

    With two experts `p_1 = sigmoid(theta)`: one learned number a task, the gate of R-MTGB.

    Args:
        experts: Number of experts K, 2 or more.
        lr: Learning rate of `theta`, in an optimizer group of its own without weight decay.
        start: Mean of the initial `theta`.
        spread: Standard deviation of the initial `theta`.
    """

    def __init__(self, experts: int, *, lr: float, start: float, spread: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(start + spread * torch.randn(experts - 1))
        self.optimizer_options = {"lr": lr, "weight_decay": 0.0}

    @property
    def proportions(self) -> Tensor:
        """`[K]`, non-negative, sum 1."""
        return torch.cat([self.theta.new_zeros(1), self.theta]).softmax(0)

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """`sum_k p_k outputs[k]`."""
        return torch.stack([p * o for p, o in zip(self.proportions, outputs, strict=True)]).sum(0)


class GatedHead(nn.Module):
    """A task's head on its mixture of the experts: `head(sum_k p_k E_k)`.

    Args:
        head: The head proper.
        gate: The task's gate.
    """

    def __init__(self, head: nn.Module, gate: Gate) -> None:
        super().__init__()
        self.head = head
        self.gate = gate

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Prediction from the outputs of the experts."""
        return self.head(self.gate(features))


class OutlierGate(HardSharing):
    """Makes a model robust against outlier tasks: two shared functions and a gate a task.

    `yhat_t = head_t((1 - s_t) E_0(x) + s_t E_1(x))`, `s_t = sigmoid(theta_t)`: the network form of
    block 2 of R-MTGB. With `w_t` from any balancer the experts get `sum_t w_t (1 - s_t) J_0^T d_t`
    and `sum_t w_t s_t J_1^T d_t`, where `d_t` is the gradient at the mixture: the gated
    pseudo-residuals of the boosting algorithm. Related tasks gather at one expert and outliers at
    the other, so that neither spoils the other's function.

    `theta_t` belongs to the task, like its head: it follows its own loss and is no column of the
    Jacobian, so that a balancer that gives a task no weight does not freeze its gate.

    Args:
        experts: Number of experts; K of them tell K groups of tasks apart.
        lr: Learning rate of the gates, about 15 times that of the network.
        start: Mean of the initial `theta`.
        spread: Standard deviation of the initial `theta`.
        align: Start all heads from the same weights, where their shapes agree. Otherwise the gate
            sorts tasks by the sign of their heads and not by their function.

    The model is the same when `theta` changes its sign and the experts their places: which side
    outliers take is chance. `outliers` finds them on either.

    Differences to the paper: it boosts trees in three blocks one after the other; here experts,
    gates and heads are trained together, and a common part is optional (`Experts(stem=...)`).

    References:
        Emami, Martínez-Muñoz, Hernández-Lobato. Robust Multi-Task Gradient Boosting. Expert Systems
        with Applications 2025. https://arxiv.org/abs/2507.11411
    """

    def __init__(
        self,
        *,
        experts: int = 2,
        lr: float = 0.05,
        start: float = -0.5,
        spread: float = 0.1,
        align: bool = True,
    ) -> None:
        if experts < 2:
            raise ConfigError(f"`experts` should be 2 or more. Got {experts}.")
        if not lr > 0:
            raise ConfigError(f"`lr` of the gates should be positive. Got {lr}.")
        if spread < 0:
            raise ConfigError(f"`spread` should be 0 or more. Got {spread}.")
        self.experts = experts
        self.align = align
        self._options = {"lr": lr, "start": start, "spread": spread}
        self._first: dict[str, Tensor] | None = None

    def backbone(self, make: Callable[[], nn.Module]) -> Experts:
        """The experts.

        Args:
            make: Makes one of them, with new initial weights.
        """
        return Experts([make() for _ in range(self.experts)])

    def head(self, head: nn.Module) -> GatedHead:
        """A head with its gate.

        Args:
            head: The head proper.
        """
        if self.align and self._first is not None:
            own = head.state_dict()
            same = {
                key: value
                for key, value in self._first.items()
                if key in own and own[key].shape == value.shape
            }
            head.load_state_dict(same, strict=False)
        elif self.align:
            self._first = {key: value.clone() for key, value in head.state_dict().items()}
        return GatedHead(head, Gate(self.experts, **self._options))


def gates(heads: nn.ModuleDict) -> dict[str, Tensor]:
    """Proportions of the tasks in the experts, task name -> `[K]`, of the heads that have a gate.

    Args:
        heads: Task name -> head.
    """
    return {
        name: head.gate.proportions.detach()
        for name, head in heads.items()
        if isinstance(head, GatedHead)
    }


def outlier_scores(proportions: Tensor) -> Tensor:
    """How far each task is from the others, `|s_t - median(s)|`, `[m]`, in [0, 1].

    With more than two experts: half the L1 distance to the median of each proportion.

    Args:
        proportions: `[m, K]`.
    """
    middle = proportions.quantile(0.5, dim=0)
    return (proportions - middle).abs().sum(1) / 2


def outliers(proportions: Mapping[str, Tensor], *, threshold: float = 0.2) -> tuple[str, ...]:
    """Tasks whose score exceeds the threshold; none if that would be half of the tasks or more.

    A split of the tasks into two large groups is a partition, not a group with outliers.

    Args:
        proportions: What `gates` gives.
        threshold: Least score of an outlier, in (0, 1).
    """
    if not proportions:
        return ()
    scores = outlier_scores(torch.stack(list(proportions.values())))
    pairs = zip(proportions, scores.tolist(), strict=True)
    found = tuple(name for name, score in pairs if score > threshold)
    return found if 2 * len(found) < len(proportions) else ()
