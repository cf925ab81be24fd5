"""Segmentation metrics: slow reference, torchmetrics, masks, parts, empty input, messages."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from mtl.errors import ConfigError, TaskError
from mtl.metrics import MeanIoU, PixelAccuracy


def batch(seed, classes=4, samples=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, 4, 5, generator=generator)
    target = torch.randint(-1, classes, (samples, 4, 5), generator=generator)
    return logits, target


def slow(logits, target, classes):
    """Mean IoU over the classes that occur, and accuracy, with sets of pixels."""
    guess, truth = logits.argmax(1).flatten().tolist(), target.flatten().tolist()
    pairs = [(p, t) for p, t in zip(guess, truth, strict=True) if t >= 0]
    ious = []
    for c in range(classes):
        union = sum(c in pair for pair in pairs)
        if union:
            ious.append(sum(pair == (c, c) for pair in pairs) / union)
    hits = [p == t for p, t in pairs]
    return (np.mean(ious), np.mean(hits)) if pairs else (np.nan, np.nan)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), absent=st.booleans())
def test_is_the_slow_definition(seed, classes, absent):
    logits, target = batch(seed, classes)
    if absent:
        logits[:, classes - 1] = -100.0
        target[target == classes - 1] = -1
    iou, accuracy = MeanIoU(classes), PixelAccuracy(classes)
    iou.update(logits, target)
    accuracy.update(logits, target)
    expected = slow(logits, target, classes)
    assert iou.compute().item() == pytest.approx(expected[0], rel=1e-12, nan_ok=True)
    assert accuracy.compute().item() == pytest.approx(expected[1], rel=1e-12, nan_ok=True)


def test_absent_class_is_left_out():
    metric = MeanIoU(3)
    logits = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    metric.update(logits, torch.tensor([0, 1, 1]))
    assert metric.compute().item() == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_agrees_with_torchmetrics():
    logits, target = batch(0)
    jaccard = MulticlassJaccardIndex(4, average="macro", ignore_index=-1)
    accuracy = MulticlassAccuracy(4, average="micro", ignore_index=-1)
    for ours, theirs in ((MeanIoU(4), jaccard), (PixelAccuracy(4), accuracy)):
        ours.update(logits, target)
        theirs.update(logits, target)
        assert ours.compute().item() == pytest.approx(theirs.compute().item(), rel=1e-6)


@pytest.mark.parametrize("metric", [MeanIoU, PixelAccuracy])
def test_updates_and_processes_add_up(metric):
    logits, target = batch(1, samples=6)
    whole, parts, left, right = (metric(4) for _ in range(4))
    whole.update(logits, target)
    for i in range(6):
        parts.update(logits[i : i + 1], target[i : i + 1])
        (left if i < 2 else right).update(logits[i : i + 1], target[i : i + 1])
    left.merge_state(right)
    assert torch.equal(parts.compute(), whole.compute())
    assert torch.equal(left.compute(), whole.compute())


def test_counts_beyond_float32_are_exact():
    metric = PixelAccuracy(2)
    metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    metric.merge_state({"confusion": torch.tensor([[2**40, 0], [0, 0]])})
    assert metric.confusion.tolist() == [[2**40, 0], [1, 0]]
    assert 1 - metric.compute().item() == pytest.approx(2**-40, rel=1e-3)


@pytest.mark.parametrize("metric", [MeanIoU, PixelAccuracy])
@pytest.mark.parametrize("samples", [0, 2])
def test_nothing_labelled_is_nan_without_a_warning(metric, samples):
    instance = metric(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        instance.update(torch.zeros(samples, 4, 2, 2), torch.full((samples, 2, 2), -1))
        assert instance.compute().isnan()
    logits, target = batch(2)
    instance.update(logits, target)
    assert instance.compute().isfinite()


def test_one_confusion_matrix_for_both():
    collection = MetricCollection({"iou": MeanIoU(4), "accuracy": PixelAccuracy(4)})
    for seed in range(3):
        collection.update(*batch(seed))
    assert list(collection.compute_groups.values()) == [["accuracy", "iou"]]
    both = [torch.cat(tensors) for tensors in zip(*map(batch, range(3)), strict=True)]
    values = collection.compute()
    assert (values["iou"].item(), values["accuracy"].item()) == pytest.approx(slow(*both, 4))


def test_classification_targets_and_reset():
    metric = PixelAccuracy(3)
    logits = torch.eye(3)
    metric.update(logits, torch.tensor([0, 1, 0], dtype=torch.int32))
    assert metric.compute().item() == pytest.approx(2 / 3)
    metric.reset()
    metric.update(logits, torch.tensor([0, 1, 2], dtype=torch.int8))
    assert metric.compute().item() == 1.0


def test_small_integer_targets_do_not_wrap():
    classes = 40
    metric = PixelAccuracy(classes)
    metric.update(torch.eye(classes), torch.arange(classes, dtype=torch.uint8))
    assert metric.compute().item() == 1.0


def test_misfits_are_refused():
    with pytest.raises(ConfigError, match=r"num_classes: expected .* got 1"):
        MeanIoU(1)
    metric = MeanIoU(4)
    with pytest.raises(TaskError, match=r"MeanIoU: expected logits \[B, 4, ...\]"):
        metric.update(torch.zeros(2, 3, 2, 2), torch.zeros(2, 2, 2, dtype=torch.long))
    with pytest.raises(TaskError, match=r"squeeze\(1\)"):
        metric.update(torch.zeros(2, 4, 2, 2), torch.zeros(2, 1, 2, 2, dtype=torch.long))
    with pytest.raises(TaskError, match="below num_classes = 4, got 255"):
        metric.update(torch.zeros(1, 4), torch.tensor([255]))
    with pytest.raises(TaskError, match="integer class ids"):
        metric.update(torch.zeros(1, 4), torch.tensor([1.0]))
