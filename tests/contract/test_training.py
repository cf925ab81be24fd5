"""Every registered balancer x what training promises, through the Lightning Trainer."""

import copy
import gc
import warnings
import weakref

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mtl import Balancer, MTLModule, Step
from mtl.callbacks import AtomicCheckpointIO, RandomState
from mtl.rows import Rows
from tests.support import VARIANTS, ToyData, assert_same, make_balancer, make_model, state_of

EPOCHS = 3


def make_module(variant, **kwargs):
    model, tasks = make_model(**kwargs)
    return MTLModule(
        model, tasks, make_balancer(variant), optimizer=lambda p: torch.optim.Adam(p, lr=0.01)
    )


def make_trainer(folder, **options):
    options = {"max_epochs": EPOCHS, "enable_checkpointing": False, **options}
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        **options,
    )


def fit(module, folder, *, ckpt_path=None, callbacks=(), **options):
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(folder, callbacks=[RandomState(), *callbacks], **options)
        trainer.fit(module, ToyData().loader(), ckpt_path=ckpt_path)
    return trainer


def bare_loop(variant, *, accumulate=1, clip=None, autocast=False):
    """The same training without Lightning."""
    model, tasks = make_model()
    balancer = make_balancer(variant)
    groups = [{"params": list(model.parameters())}, *balancer.parameter_groups()]
    optimizer = torch.optim.Adam(groups, lr=0.01)
    parameters = [p for group in groups for p in group["params"]]
    loader = ToyData().loader()
    total = EPOCHS * len(loader)
    context = lambda: torch.autocast("cpu", torch.bfloat16, enabled=autocast)  # noqa: E731
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        balancer.on_epoch_start(epoch)
        for i, batch in enumerate(loader):
            step = Step.evaluate(model, tasks, batch, needs=balancer.needs, context=context)
            step.scale = 1 / accumulate
            step.progress = (epoch * len(loader) + i) // accumulate * accumulate / total
            balancer.backward(step)
            if (i + 1) % accumulate == 0:
                if clip:
                    torch.nn.utils.clip_grad_norm_(parameters, clip)
                optimizer.step()
                optimizer.zero_grad()
                balancer.after_step(step)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_bare_loop(variant, tmp_path):
    module = make_module(variant)
    before = state_of(module.model)
    fit(module, tmp_path)
    trained = state_of(module.model)
    assert all(not torch.equal(before[name], trained[name]) for name in trained)
    assert_same(trained, state_of(bare_loop(variant)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_clipping_with_accumulation(variant, tmp_path):
    module = make_module(variant)
    fit(module, tmp_path, accumulate_grad_batches=2, gradient_clip_val=0.3)
    expected = state_of(bare_loop(variant, accumulate=2, clip=0.3))
    for name, value in state_of(module.model).items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_mixed(variant, tmp_path):
    module = make_module(variant)
    fit(module, tmp_path, precision="bf16-mixed")
    trained = state_of(module.model)
    assert_same(trained, state_of(bare_loop(variant, autocast=True)))
    different = state_of(bare_loop(variant))
    assert any(not torch.equal(trained[name], different[name]) for name in trained)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("where", ["end of an epoch", "middle of an epoch"])
def test_resumes_to_the_bit(variant, where, tmp_path):
    whole = make_module(variant, noisy=True)
    keep = (
        ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        if where == "end of an epoch"
        else ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=6)
    )
    fit(whole, tmp_path, callbacks=[keep], enable_checkpointing=True)
    name = "epoch=1.ckpt" if where == "end of an epoch" else "step=6.ckpt"

    resumed = make_module(variant, noisy=True)
    torch.manual_seed(77)  # the state in the checkpoint must win
    trainer = fit(resumed, tmp_path, ckpt_path=tmp_path / name)

    assert trainer.global_step == 12
    assert_same(state_of(whole), state_of(resumed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_seed_same_result(variant, tmp_path):
    first, second = make_module(variant, noisy=True), make_module(variant, noisy=True)
    fit(first, tmp_path)
    fit(second, tmp_path)
    assert_same(state_of(first), state_of(second))


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_optimizer_changes_the_model(variant):
    model, tasks = make_model(noisy=True)
    balancer = make_balancer(variant)
    balancer.on_epoch_start(0)
    step = Step.evaluate(model, tasks, ToyData().batch(), needs=balancer.needs)
    before = state_of(model)
    random_state = torch.get_rng_state()
    report = balancer.backward(step)
    assert_same(before, state_of(model))
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(t.requires_grad for t in vars(report).values() if isinstance(t, torch.Tensor))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_leaves_nothing_behind(variant):
    """Rows and graph are freed with the step, not when the garbage collector comes by."""
    model, tasks = make_model()
    balancer = make_balancer(variant)
    balancer.on_epoch_start(0)
    gc.collect()
    gc.disable()
    try:
        step = Step.evaluate(model, tasks, ToyData().batch(), needs=balancer.needs)
        balancer.backward(step)
        balancer.after_step(step)
        steps = weakref.ref(step)
        del step
        assert steps() is None
        assert not any(type(found) in (Step, Rows) for found in gc.get_objects())
    finally:
        gc.enable()


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_task_is_plain_training(variant):
    model, tasks = make_model(num_tasks=1)
    plain = copy.deepcopy(model)
    balancer = make_balancer(variant, num_tasks=1)
    reference = Balancer(  # what a combiner weighs stays: other objectives, other points
        transforms=dict(balancer.transforms),
        regularizers=dict(balancer.regularizers),
        sharpness=copy.deepcopy(balancer.sharpness),
    )
    balancer.backward(Step.evaluate(model, tasks, ToyData().batch(), needs=balancer.needs))
    reference.backward(Step.evaluate(plain, tasks, ToyData().batch(), needs=balancer.needs))
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_survives_a_state_dict(variant):
    """A fresh balancer with the saved state goes on as the old one would have."""

    def steps(balancer, model, tasks, count, first_epoch):
        gradients = []
        for i in range(count):
            balancer.on_epoch_start(first_epoch + i)
            model.zero_grad()
            batch = ToyData().batch(slice(3 * i, 3 * i + 9))
            step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
            balancer.backward(step)
            gradients += [p.grad.clone() for p in model.parameters()]
            torch.optim.SGD(model.parameters(), lr=0.01).step()
            balancer.after_step(step)
        return gradients

    model, tasks = make_model()
    old = make_balancer(variant)
    steps(old, model, tasks, 3, 0)
    saved = copy.deepcopy(old.state_dict())
    fresh = make_balancer(variant, seed=9)
    fresh.load_state_dict(saved)
    twin = copy.deepcopy(model)
    expected = steps(old, model, tasks, 2, 3)
    for a, b in zip(expected, steps(fresh, twin, tasks, 2, 3), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("variant", VARIANTS)
def test_absent_tasks_get_no_gradient_and_no_weight(variant):
    model, tasks = make_model()
    balancer = make_balancer(variant)
    balancer.on_epoch_start(0)
    inputs, targets = ToyData().batch()
    targets = {**targets, "task1": torch.full_like(targets["task1"], torch.nan)}
    report = balancer.backward(Step.evaluate(model, tasks, (inputs, targets), needs=balancer.needs))
    assert report.tasks == ("task0", "task2")
    assert report.weights is None or len(report.weights) == 2
    head = model.heads["task1"]
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())
    assert all(p.grad.isfinite().all() for p in model.backbone.parameters())
    assert all(p.grad.any() for p in model.heads["task0"].parameters())
