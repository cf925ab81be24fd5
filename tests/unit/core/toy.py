"""Small multi-task problems in float64 and their gradients by plain autograd."""

import torch
from torch import Tensor, nn

from mtl import MultiTaskModel, Task, Transform, Weighting
from mtl.losses import MSE, CrossEntropy

NAMES = ("a", "b", "c")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trunk(width=4):
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, width), nn.Tanh())


def heads(names=NAMES):
    """Regression for all but `b`, which has three classes."""
    return {name: nn.Linear(4, 3 if name == "b" else 2) for name in names}


def tasks_of(model):
    return [
        Task(name, head, CrossEntropy() if name == "b" else MSE())
        for name, head in model.heads.items()
    ]


def targets_of(names=NAMES, size=6, seed=2):
    targets = {name: normal(size, 2, seed=seed + i) * 3**i for i, name in enumerate(names)}
    if "b" in targets:
        targets["b"] = torch.arange(size) % 3
    return targets


def problem(names=NAMES, *, backbone=None, seed=0, size=6):
    """A model, its tasks and a batch that all tasks share."""
    torch.manual_seed(seed)
    model = MultiTaskModel(trunk() if backbone is None else backbone, heads(names)).double()
    return model, tasks_of(model), (normal(size, 3, seed=seed + 1), targets_of(names, size))


def multi_input(names=NAMES, *, seed=0, size=6):
    """The same, where every task has its own inputs."""
    model, tasks, (_, targets) = problem(names, seed=seed, size=size)
    inputs = {name: normal(size, 3, seed=seed + 10 + i) for i, name in enumerate(names)}
    return model, tasks, (inputs, targets)


def losses_of(model, tasks, batch):
    """Losses with graph, `[m]`, and the representation by task."""
    outputs = model(batch[0])
    losses = [t.evaluate(outputs.predictions[t.name], batch[1][t.name])[0] for t in tasks]
    return torch.stack(losses), outputs.representation


def flat(scalar, tensors):
    """The gradient of a scalar by tensors as one vector; zero where nothing depends."""
    gradients = torch.autograd.grad(
        scalar, tensors, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([g.reshape(-1) for g in gradients])


def jacobian_of(values, tensors):
    return torch.stack([flat(value, tensors) for value in values])


def grads(parameters):
    """What lies in `.grad`, as one vector."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
    )


def heads_of(model):
    return [p for name in model.heads for p in model.task_parameters(name)]


class Constant(Weighting):
    """Weights 1, 2, 3, ..."""

    def forward(self, gramian: Tensor) -> Tensor:
        return torch.arange(1, len(gramian) + 1).to(gramian)


class InverseNorm(Weighting):
    """Weights 1 / |g_i|: smooth in the Gramian, and sensitive to every mistake in it."""

    def forward(self, gramian: Tensor) -> Tensor:
        return gramian.diagonal().rsqrt()


class Groups(Transform):
    """Means of groups of tasks: the first two, and each of the others alone."""

    def forward(self, losses: Tensor) -> Tensor:
        return torch.cat([losses[:2].mean()[None], losses[2:]])


class Products(Transform):
    """More objectives than losses: the losses and the products of neighbours."""

    def forward(self, losses: Tensor) -> Tensor:
        return torch.cat([losses, losses * losses.roll(1)])


class Power(Transform):
    """`L ** e` with a learned exponent."""

    elementwise = True

    def __init__(self, exponent: float = 0.7) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent, dtype=torch.float64))

    def forward(self, losses: Tensor) -> Tensor:
        return losses**self.exponent
