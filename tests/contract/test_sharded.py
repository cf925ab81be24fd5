"""With parameters sharded over 2 processes, the update is that of one on the joint batch."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from mtl import Balancer, MTLModule
from mtl.aggregation import PCGradWeighting
from mtl.errors import UnsupportedError
from mtl.parts import Needs
from mtl.regularizers import Activity
from mtl.sharding import check_sharded
from mtl.strategy import FSDP2Strategy
from tests.contract.test_distributed import WORLD, batches
from tests.support import VARIANTS, make_balancer, make_model

pytestmark = pytest.mark.skipif(
    not hasattr(torch.cpu.current_stream(), "record_event"),
    reason="this torch shards on accelerators only",
)


def runs_sharded(variant):
    balancer = make_balancer(variant)
    compares = bool(balancer.needs & (Needs.GRAMIAN | Needs.JACOBIAN))
    at_parameters = balancer.level == "parameters" and compares
    refused = Needs.SALIENCY in balancer.needs
    return not (at_parameters or refused or balancer.sharpness)


PLAIN = [
    "ew",
    "uw",
    "famo",
    "rlw",
    *(f"{name} at the representation" for name in ("mgda", "pcgrad", "nash_mtl", "graddrop")),
    "graddrop of the paper",
    "pcgrad of log losses every second step at the representation",
]
FLAGS = {
    "plain": {},
    "clipped": {"gradient_clip_val": 0.05},
    "clipped by value": {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
    "accumulated": {"accumulate_grad_batches": 2},
}
BLOCKWISE = "pcgrad at the representation, block by block"
OTHERS = [("uw", "full", flags) for flags in FLAGS if flags != "plain"] + [
    ("pcgrad at the representation", "full", "accumulated"),
    (BLOCKWISE, "full", "plain"),
    ("with a regularizer", "full", "plain"),
    ("with a regularizer and weighted heads", "partial", "plain"),
]
CASES = [(variant, "partial", "plain") for variant in PLAIN] + OTHERS
REST = [(variant, kind, "plain") for variant in VARIANTS for kind in ("full", "partial")]
REFUSED = ["mgda", "gradnorm at the parameters", "graddrop", "excess_mtl"]
REFUSED += ["uw + joint_sam", "rep_mtl"]


def balancer_of(variant):
    if variant == BLOCKWISE or variant in VARIANTS:
        return make_balancer(variant.partition(",")[0] if variant == BLOCKWISE else variant)
    heads = "weighted" if "heads" in variant else "own"
    return Balancer(
        PCGradWeighting(seed=0),
        regularizers=[Activity(strength=0.1)],
        level="representation",
        head_grad=heads,
    )


class Blockwise(MTLModule):
    def configure_model(self):
        if self.device_mesh is not None:
            for layer in self.model.backbone:
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
        super().configure_model()


def part(joint, rank):
    """A process's rows; where none has a label, the batch does not name the task at all."""
    inputs, targets = joint
    rows = slice(4 * rank, 4 * rank + 4)
    own = {name: values[rows] for name, values in targets.items()}
    return inputs[rows], {name: v for name, v in own.items() if not v.isnan().all()}


def train(case, rank=None):
    variant, kind, flags = case
    model, tasks = make_model(dtype=torch.float64)
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.5)
    kind_of_module = Blockwise if variant == BLOCKWISE else MTLModule
    module = kind_of_module(model, tasks, balancer_of(variant).double(), optimizer=optimizer)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1 if rank is None else WORLD,
        strategy="auto" if rank is None else FSDP2Strategy(),
        max_epochs=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **FLAGS[flags],
    )
    data = batches(kind) if rank is None else [part(joint, rank) for joint in batches(kind)]
    validation = data[: 1 + (rank or 0)]  # processes may have different numbers of batches
    trainer.fit(module, *(DataLoader(batches, batch_size=None) for batches in (data, validation)))
    state = {name: value.detach() for name, value in module.named_parameters()}
    if rank is not None:
        held = sum(value.to_local().numel() for value in module.model.parameters())
        assert 0 < held < sum(value.numel() for value in module.model.parameters())
        state = {n: v.full_tensor() if n.startswith("model") else v for n, v in state.items()}
    return state


def train_or_refuse(case, rank):
    try:
        return train(case, rank)
    except UnsupportedError as error:
        return str(error)


def process(rank, port, cases, folder):
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(WORLD),
    }
    torch.save({case: train_or_refuse(case, rank) for case in cases}, Path(folder) / f"{rank}.pt")


def run(cases, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, cases, str(folder)), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run(CASES, tmp_path_factory.mktemp("sharded"))


@pytest.fixture(scope="module")
def other_results(tmp_path_factory):
    return run(REST, tmp_path_factory.mktemp("sharded"))


def check(results, case):
    expected = train(case)
    for rank in range(WORLD):
        found = results[rank][case]
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-6, atol=1e-12, msg=f"{rank} {name}"
            )


@pytest.mark.parametrize("case", CASES, ids=" - ".join)
def test_sharded_equals_one_process(results, case):
    check(results, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids=" - ".join)
def test_every_method_equals_one_process_or_says_that_it_does_not_run(other_results, case):
    if runs_sharded(case[0]):
        check(other_results, case)
    else:
        assert "sharded" in other_results[0][case]
        assert "trainer=ddp" in other_results[0][case]


@pytest.fixture
def sharded(tmp_path):
    """A model sharded among one process."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh

    from mtl.sharding import shard

    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    model, tasks = make_model()
    shard(model, init_device_mesh("cpu", (1,)))
    yield model, tasks
    destroy_process_group()


@pytest.mark.parametrize("variant", REFUSED)
def test_what_does_not_run_says_so(sharded, variant):
    with pytest.raises(UnsupportedError, match=r"sharded.*trainer=ddp"):
        check_sharded(make_balancer(variant), sharded[0], 3)


def test_a_single_task_needs_no_rows(sharded):
    check_sharded(make_balancer("mgda"), sharded[0], 1)


def test_partly_sharded_models_are_refused(sharded):
    model = nn.ModuleList([sharded[0], nn.Linear(2, 2)])
    with pytest.raises(UnsupportedError, match="some of both"):
        check_sharded(Balancer(), model, 3)
