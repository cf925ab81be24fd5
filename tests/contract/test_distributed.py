"""With 2 processes every registered balancer gives what one process gives on the joint batch.

But for terms that are defined on the samples of a process: they are averaged over processes.
"""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mtl import Step
from mtl.distributed import HeldEvenly, HeldSamples
from tests.support import VARIANTS, ToyData, make_balancer, make_model, state_of

WORLD = 2
STEPS = 3
COLUMNS = (1, 7, 8)


def batches(kind):
    """Joint batches of three steps; `partial` has labels missing unevenly over the processes."""
    data = ToyData(dtype=torch.float64)
    joint = []
    for i in range(STEPS):
        inputs, targets = data.batch(slice(8 * i, 8 * i + 8))
        if kind == "partial":
            targets = {name: values.clone() for name, values in targets.items()}
            targets["task0"][:3] = torch.nan  # 1 of 4 and 4 of 4 labelled
            targets["task1"][4:] = torch.nan  # absent from the second process
            if i == 1:
                targets["task2"][:] = torch.nan  # absent everywhere
        joint.append((inputs, targets))
    return joint


def train(variant, kind, rows):
    model, tasks = make_model(dtype=torch.float64)
    balancer = make_balancer(variant).double()
    parameters = [*model.parameters(), *(p for p in balancer.parameters() if p.requires_grad)]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    for epoch, (inputs, targets) in enumerate(batches(kind)):
        balancer.on_epoch_start(epoch)
        batch = inputs[rows], {name: values[rows] for name, values in targets.items()}
        optimizer.zero_grad()
        step = Step.evaluate(model, tasks, batch, needs=balancer.needs)
        balancer.backward(step)
        optimizer.step()
        balancer.after_step(step)
    return state_of(model) | {f"balancer.{k}": v for k, v in state_of(balancer).items()}


def there_and_back(columns):
    """Two rows, the sum of each scattered over the processes and gathered again."""
    held = HeldEvenly.here(columns)
    rows = torch.arange(2.0 * columns).view(2, -1) * (dist.get_rank() + 1)
    return held.all_gather(torch.stack([held.reduce_scatter(row) for row in rows]))


def samples(rank):
    """What a process has of two tensors, with other numbers of samples in each."""
    return [torch.full((rank + 1, 2), 10.0 + rank), torch.full((3 - rank,), 20.0 + rank)]


def samples_together():
    """The columns of its own samples, cut from all and gathered again."""
    own = samples(dist.get_rank())
    held = HeldSamples.here(own)
    part = torch.cat([t.flatten() for t in own]).repeat(2, 1)
    whole = held.all_gather(part)
    assert (held.width, held.total) == (part.shape[1], whole.shape[1])
    assert torch.equal(held.of(whole), part)
    return whole


def first_gradient(variant, rows, *, without_terms=False):
    model, tasks = make_model(dtype=torch.float64)
    inputs, targets = batches("partial")[0]
    batch = inputs[rows], {name: values[rows] for name, values in targets.items()}
    balancer = make_balancer(variant).double()
    if without_terms:
        balancer.regularizers.clear()
    balancer.backward(Step.evaluate(model, tasks, batch, needs=balancer.needs))
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([g.reshape(-1) for g in gradients])


def process(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    rows = slice(4 * rank, 4 * rank + 4)
    results = {(v, k): train(v, k, rows) for v in VARIANTS for k in ("full", "partial")}
    results |= {columns: there_and_back(columns) for columns in COLUMNS}
    results["samples"] = samples_together()
    results |= {v: first_gradient(v, rows) for v in VARIANTS if local(v)}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    mp.spawn(process, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def local(variant):
    return any(part.local for part in make_balancer(variant).regularizers.values())


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not local(v)])
@pytest.mark.parametrize("kind", ["full", "partial"])
def test_two_processes_equal_one(results, variant, kind):
    expected = train(variant, kind, slice(None))
    for rank in range(WORLD):
        found = results[rank][variant, kind]
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-6, atol=1e-12, equal_nan=True, msg=f"{rank} {name}"
            )


@pytest.mark.parametrize("columns", COLUMNS)
def test_columns_are_shared_evenly_or_not(results, columns):
    expected = torch.arange(2.0 * columns).view(2, -1) * sum(range(1, WORLD + 1))
    for rank in range(WORLD):
        torch.testing.assert_close(results[rank][columns], expected, rtol=0, atol=0)


def test_columns_of_samples_are_tensor_by_tensor(results):
    tensors = zip(*map(samples, range(WORLD)), strict=True)
    expected = torch.cat([t.flatten() for of_tensor in tensors for t in of_tensor])
    for found in results:
        torch.testing.assert_close(found["samples"], expected.repeat(2, 1), rtol=0, atol=0)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if local(v)])
@pytest.mark.parametrize("kind", ["full", "partial"])
def test_processes_agree_on_local_terms(results, variant, kind):
    first, second = (r[variant, kind] for r in results)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_local_terms_are_averaged(results):
    """All labels of one task lie in the first process."""
    whole = first_gradient("rep_mtl", slice(None), without_terms=True)
    terms = []
    for rank in range(WORLD):
        rows = slice(4 * rank, 4 * rank + 4)
        with_terms, without = (
            first_gradient("rep_mtl", rows, without_terms=w) for w in (False, True)
        )
        terms.append(with_terms - without)
    torch.testing.assert_close(results[0]["rep_mtl"], whole + sum(terms) / WORLD)
