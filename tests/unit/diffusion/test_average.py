"""The moving average of the weights, in training and on every balancer's path."""

import pytest
import torch

from mtl.callbacks import WeightAverage
from mtl.errors import ConfigError
from tests.contract.test_training import fit, make_module
from tests.support import assert_same, state_of

VARIANTS = ["ew", "ant", "ant_nash", "ant_pcgrad", "graddrop"]


class Recorder(WeightAverage):
    """Also keeps the weights after every step."""

    def __init__(self, decay):
        super().__init__(decay)
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step > self._steps:
            self.weights.append(state_of(pl_module.model))
        super().on_train_batch_end(trainer, pl_module, *args)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_average_of_all_steps(variant, accumulate, tmp_path):
    module = make_module(variant)
    start = state_of(module.model)
    recorder = Recorder(0.6)
    fit(module, tmp_path, callbacks=[recorder], accumulate_grad_batches=accumulate)
    assert len(recorder.weights) == 12 // accumulate
    expected = start
    for n, weights in enumerate(recorder.weights, start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        expected = {k: decay * v + (1 - decay) * weights[k] for k, v in expected.items()}
    for name, value in state_of(module.averaged).items():
        torch.testing.assert_close(value, expected[name])
    assert not any(p.requires_grad for p in module.averaged.parameters())


def test_evaluation_takes_the_average_and_gives_the_weights_back(tmp_path):
    module = make_module("ew", noisy=True)
    seen = []

    class Look(WeightAverage):
        def on_validation_epoch_end(self, trainer, pl_module):
            seen.append((state_of(pl_module.model), pl_module.model.training))

    torch.manual_seed(0)
    from tests.contract.test_training import ToyData, make_trainer

    trainer = make_trainer(tmp_path, callbacks=[Look(0.9)], max_epochs=2)
    trainer.fit(module, ToyData().loader(), ToyData().loader())
    averaged, weights = state_of(module.averaged), state_of(module.model)
    assert_same(seen[-1][0], averaged)
    assert not seen[-1][1]
    assert module.model.training
    assert any(not torch.equal(averaged[name], weights[name]) for name in weights)
    assert {k.split(".")[0] for k in module.state_dict()} >= {"model", "averaged"}


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_wrong_decay(decay):
    with pytest.raises(ConfigError, match="decay"):
        WeightAverage(decay)
