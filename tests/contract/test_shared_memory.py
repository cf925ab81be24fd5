"""Methods that remember gradients: each process its columns, in the state all of them."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mtl import Step
from mtl.aggregation.memory import GradientMemory
from mtl.distributed import HeldEvenly
from mtl.errors import UnsupportedError
from tests.support import ToyData, assert_same, make_balancer, make_model

VARIANTS = ["db_mtl", "moco", "excess_mtl", "db_mtl + joint task_sam every second step"]
SAMPLES, HALF, STEPS = 6, 2, 4
TOTAL = 5 * 16 + 16 + 16 * 8 + 8  # shared parameters: three processes cannot share them evenly


def batch(i, rows):
    """One of the joint batches, this process's samples of it; tasks come and go."""
    inputs, targets = ToyData(dtype=torch.float64).batch(slice(SAMPLES * i, SAMPLES * (i + 1)))
    targets = {name: values.clone() for name, values in targets.items()}
    if i == 1:
        targets["task1"][:] = torch.nan
    if i == 2:
        targets["task0"][:3] = torch.nan
    return inputs[rows], {name: values[rows] for name, values in targets.items()}


class Training:
    """A model, its optimizer and a balancer, in one of `world` processes."""

    def __init__(self, variant, rank=0, world=1, state=None):
        self.model, self.tasks = make_model(dtype=torch.float64)
        self.balancer = make_balancer(variant).double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        share = SAMPLES // world
        self.rows = slice(share * rank, share * (rank + 1))
        for part, saved in copy.deepcopy(state or {}).items():
            getattr(self, part).load_state_dict(saved)

    def run(self, steps):
        for i in steps:
            self.optimizer.zero_grad()
            needs = self.balancer.needs
            step = Step.evaluate(self.model, self.tasks, batch(i, self.rows), needs=needs)
            self.balancer.backward(step)
            self.optimizer.step()
        return self

    def state(self):
        parts = ("model", "optimizer", "balancer")
        return copy.deepcopy({part: getattr(self, part).state_dict() for part in parts})


def train(variant, rank=0, world=1, *, state=None):
    """From the start, or from a state in the middle; the states there and at the end."""
    training = Training(variant, rank, world, state)
    middle = state or training.run(range(HALF)).state()
    return middle, training.run(range(HALF, STEPS)).state()


def memories(training):
    return [m for m in training.balancer.modules() if isinstance(m, GradientMemory)]


def refused(function):
    try:
        function()
    except UnsupportedError as error:
        return str(error)
    return None


def process(rank, folder, world, earlier):
    """Goes on from earlier states, and from its own in the middle; `results` by where from."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store{world}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    known = torch.load(Path(folder) / f"{earlier}.pt", weights_only=True)
    results = {}
    for variant in VARIANTS:
        middle, end = train(variant, rank, world)
        results[variant] = middle, end
        results[variant, "own"] = train(variant, rank, world, state=middle)[1]
        results[variant, "earlier"] = train(variant, rank, world, state=known[variant][0])[1]
    last = Training("moco", rank, world).run(range(1))
    results["widths"] = [m.rows.shape[1] for m in memories(last)]
    dist.destroy_process_group()
    results["refused"] = [refused(last.balancer.state_dict), refused(lambda: last.run(range(1)))]
    torch.save(results, Path(folder) / (f"{world}.pt" if rank == 0 else f"{world}, {rank}.pt"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Number of processes -> results of each; three go on from two, two from one."""
    folder = tmp_path_factory.mktemp("memory")
    torch.save({v: train(v) for v in VARIANTS}, folder / "1.pt")
    found = {1: [torch.load(folder / "1.pt", weights_only=True)]}
    for world in (2, 3):
        mp.spawn(process, (str(folder), world, world - 1), nprocs=world)
        names = [f"{world}.pt", *(f"{world}, {rank}.pt" for rank in range(1, world))]
        found[world] = [torch.load(folder / name, weights_only=True) for name in names]
    return found


def numbers(state):
    """All numbers of a state of a training, by their place in it."""
    if isinstance(state, dict):
        return {
            f"{key}.{inner}": value
            for key, part in state.items()
            for inner, value in numbers(part).items()
        }
    if isinstance(state, list | tuple):
        return numbers(dict(enumerate(state)))
    return {"": torch.as_tensor(float("-inf") if state is None else state)}


def assert_close(found, expected):
    found, expected = numbers(found), numbers(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-6, atol=1e-12, equal_nan=True, msg=name
        )


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_states_are_whole_in_every_process(runs, variant, world):
    for results in runs[world]:
        for found, expected in zip(results[variant], runs[1][0][variant], strict=True):
            assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_as_many_processes_go_on_to_the_bit(runs, variant, world):
    for results in runs[world]:
        assert_same(numbers(results[variant, "own"]), numbers(results[variant][1]))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_more_processes_go_on(runs, variant, world):
    for results in runs[world]:
        assert_close(results[variant, "earlier"], runs[1][0][variant][1])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_process_goes_on(runs, variant, world):
    middle, end = runs[world][0][variant]
    assert_close(train(variant, state=middle)[1], end)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "widths"), [(2, [116, 116]), (3, [78, 78, 76])])
def test_each_process_remembers_its_columns(runs, world, widths):
    assert sum(widths) == TOTAL
    assert [results["widths"] for results in runs[world]] == [[width] for width in widths]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_columns_of_processes_that_are_gone_are_missed(runs, world):
    for results in runs[world]:
        for message in results["refused"]:
            assert "should be used by the processes among which it is shared" in message


def test_a_memory_does_not_share_what_it_loaded():
    first, second = GradientMemory(2), GradientMemory(2)
    first.like(torch.ones(2, 3))
    second.load_state_dict(first.state_dict())
    first.like(torch.ones(2, 3)).add_(1)
    assert not second.like(torch.ones(2, 3)).any()


def test_a_loaded_memory_keeps_no_more_than_its_columns():
    memory = GradientMemory(1)
    memory.load_state_dict({"_extra_state": {"rows": torch.arange(8.0)[None], "steps": 3}})
    rows = memory.like(torch.ones(1, 2), HeldEvenly(slice(3, 5), 8))
    assert rows.tolist() == [[3.0, 4.0]]
    assert rows.untyped_storage().nbytes() == 2 * 4
    with pytest.raises(UnsupportedError, match=r"8 columns in every step\. Got 9"):
        memory.like(torch.ones(1, 2), HeldEvenly(slice(3, 5), 9))
