"""Cross-task saliency alignment, the second of Rep-MTL's two terms.

References:
    Wang, Li, Xu. Rep-MTL: Unleashing the Power of Representation-level Task Saliency for
    Multi-Task Learning. ICCV 2025. https://arxiv.org/abs/2507.21049
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mtl.errors import ConfigError
from mtl.linalg import Product, dense, gram_cosines, gram_norm, gram_products, nonzero
from mtl.regularizers.saliency import Saliency, SaliencyRegularizer, as_tasks, check_choice
from mtl.step import Step

Negatives = Literal["anchors", "affinities"]
Reduction = Literal["mean", "sum"]


def csa(
    saliency: Saliency,
    temperature: float = 0.1,
    *,
    negatives: Negatives = "anchors",
    over_tasks: Reduction = "mean",
    positive_in_denominator: bool = False,
    detach_anchors: bool = False,
) -> Tensor:
    """Cross-task saliency alignment: a sample's tasks agree, and differ from other samples.

    With the affinity of each task `M_tb = S_tb S_tb^T` (Eq. 7), the anchor of each sample
    `A_b A_b^T`, where column t of `A_b` is the mean of `S_tb` over positions (Eq. 8), and the
    cosine `sim` between such C x C matrices (Eq. 9)::

        CSA = mean_{b,t} [ln sum_{k != b} exp(sim(anchor_b, anchor_k) / temperature)
                          - sim(anchor_b, M_tb) / temperature]

    All matrices are positive semi-definite: `|CSA - ln(B - 1)| <= 1 / temperature`. With C > N no
    affinity is formed: `<X X^T, Y Y^T> = |X^T Y|^2`, and the norm of `M_tb` is that of the N x N
    matrix. Anchors are formed where that takes fewer multiplications, with many tasks.

    A factor common to all tasks changes nothing. Half precision is computed in float32. A
    saliency of zero (no label) is similar to nothing.

    Args:
        saliency: `[m, B, C, N]`, or m tensors or products `[B, C, N]`.
        temperature: > 0. The paper gives no value; 0.1 is that of SimCLR, which it cites.
        negatives: `anchors` of other samples, as printed; `affinities`: matrices of all tasks of
            other samples, as the text around Eq. 9 may be read.
        over_tasks: `mean` or `sum` of the m positive pairs of a sample. The paper does not say;
            with the mean, a strength means the same for any m.
        positive_in_denominator: Add the positive pair to the sum, as in InfoNCE; not in Eq. 9.
        detach_anchors: Anchors are constants; not so in the paper.

    Returns:
        A scalar; 0 without graph where there are less than 2 samples (our choice: the paper's sum
        over other samples is then empty).
    """
    tasks = as_tasks(saliency)
    if len(tasks[0]) < 2:
        return tasks[0].new_zeros(())
    found = similarities(tasks, negatives=negatives, detach_anchors=detach_anchors)
    return found.contrast(
        temperature, over_tasks=over_tasks, positive_in_denominator=positive_in_denominator
    )


class CSA(SaliencyRegularizer):
    """Rep-MTL's second term as a regularizer: `strength * csa(saliency)`.

    Logs the mean similarity of positive and of negative pairs.

    Args:
        strength: See `SaliencyRegularizer`, also for the options that are not listed here.
        temperature: See `csa`, as for the following.
        negatives: Which pairs are pushed apart.
        over_tasks: How the positive pairs of a sample are reduced.
        positive_in_denominator: Whether the positive pair is in the sum.
        detach_anchors: Whether anchors are constants.

    Raises:
        ConfigError: An option is out of range.
    """

    def __init__(
        self,
        *,
        strength: float = 0.9,
        temperature: float = 0.1,
        negatives: Negatives = "anchors",
        over_tasks: Reduction = "mean",
        positive_in_denominator: bool = False,
        detach_anchors: bool = False,
        log: bool = True,
        log_eps: float = 1e-8,
        channel_dim: int | None = None,
        detach: bool = False,
        warmup_epochs: int = 0,
        max_ratio: float | None = None,
    ) -> None:
        super().__init__(
            strength=strength,
            log=log,
            log_eps=log_eps,
            channel_dim=channel_dim,
            detach=detach,
            warmup_epochs=warmup_epochs,
            max_ratio=max_ratio,
        )
        if not 0 < temperature < math.inf:
            raise ConfigError(f"`temperature` should be positive. Got {temperature}.")
        check_choice("negatives", negatives, get_args(Negatives))
        check_choice("over_tasks", over_tasks, get_args(Reduction))
        self.temperature = temperature
        self.negatives: Negatives = negatives
        self.over_tasks: Reduction = over_tasks
        self.positive_in_denominator = positive_in_denominator
        self.detach_anchors = detach_anchors

    def term(self, saliency: list[Tensor | Product], step: Step) -> Tensor:
        """The value of `csa`; 0 without graph where there are less than 2 samples."""
        if len(saliency[0]) < 2:
            return saliency[0].new_zeros(())
        found = similarities(saliency, negatives=self.negatives, detach_anchors=self.detach_anchors)
        positive, negative = found.means()
        step.scalars |= {"csa/positive": positive, "csa/negative": negative}
        return found.contrast(
            self.temperature,
            over_tasks=self.over_tasks,
            positive_in_denominator=self.positive_in_denominator,
        )


class Similarities(NamedTuple):
    """Cosines between the anchor of sample b and other matrices.

    Attributes:
        positive: The affinity of task t of the same sample, `[m, B]`.
        negative: Those of sample k, r a sample, `[r, B, B]` at `[:, b, k]`; b = k does not count.
    """

    positive: Tensor
    negative: Tensor

    def contrast(
        self,
        temperature: float,
        *,
        over_tasks: Reduction = "mean",
        positive_in_denominator: bool = False,
    ) -> Tensor:
        """The value of `csa`."""
        positive = self.positive / temperature
        same = torch.eye(positive.shape[1], dtype=torch.bool, device=positive.device)
        negative = (self.negative / temperature).masked_fill(same, -torch.inf).logsumexp((0, 2))
        if positive_in_denominator:
            negative = torch.logaddexp(negative, positive)
        terms = negative - positive
        return terms.mean() if over_tasks == "mean" else terms.mean(1).sum()

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean of the positive and of the negative similarities, detached."""
        r, samples, _ = self.negative.shape
        own = self.negative.diagonal(dim1=1, dim2=2).sum()
        others = (self.negative.sum() - own) / (r * samples * (samples - 1))
        return self.positive.detach().mean(), others.detach()


def similarities(
    tasks: Sequence[Tensor | Product],
    *,
    negatives: Negatives = "anchors",
    detach_anchors: bool = False,
) -> Similarities:
    """The cosines of `csa`.

    Args:
        tasks: m tensors or products `[B, C, N]`.
        negatives: See `csa`.
        detach_anchors: See `csa`.
    """
    # A_b^T, [B, m, C], with unit norm of A_b A_b^T; the number of positions cancels.
    anchors = torch.stack([s.sum(2) for s in tasks], 1)
    if detach_anchors:
        anchors = anchors.detach()
    anchors = anchors / gram_norm(anchors @ anchors.mT).sqrt()[:, None, None]
    positive = _to_vectors(anchors, tasks) if tasks[0].shape[2] == 1 else _to_maps(anchors, tasks)
    if negatives == "anchors":
        return Similarities(positive, gram_products(anchors)[None])
    rows = [[gram_cosines(a.expand_as(anchors), s) for a in anchors] for s in tasks]
    return Similarities(positive, torch.stack([torch.stack(row) for row in rows]))


def _to_maps(anchors: Tensor, tasks: Sequence[Tensor | Product]) -> Tensor:
    return torch.stack([gram_cosines(anchors, s) for s in tasks])


def _to_vectors(anchors: Tensor, tasks: Sequence[Tensor | Product]) -> Tensor:
    """With one position `M_tb` is `s s^T`, of norm `|s|^2`: all cosines are inner products."""
    vectors = torch.stack([dense(s).squeeze(2) for s in tasks], 1)
    vectors = vectors / nonzero(vectors.detach().abs().amax(2, keepdim=True))
    sizes = nonzero(vectors.square().sum(2))
    return ((anchors @ vectors.mT).square().sum(1) / sizes).T
