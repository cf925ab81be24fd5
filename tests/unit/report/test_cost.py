"""What a run says about its cost before it starts."""

from torch import nn

from mtl import Balancer, MultiTaskModel
from mtl.aggregation import ExcessMTL, GradDrop, MoCo, PCGradWeighting
from mtl.parts import Aggregator
from mtl.regularizers import TSR, Activity
from mtl.report import describe_cost
from mtl.scalarization import FAMO
from mtl.sharpness import JointSAM, TaskSAM
from tests.support import make_model


class First(Aggregator):
    """Sees all columns."""

    def forward(self, jacobian):
        return jacobian[0]


MODEL, _ = make_model()
SHARED = 5 * 16 + 16 + 16 * 8 + 8


def describe(balancer, num_tasks=3):
    return describe_cost(balancer, MODEL, num_tasks)


def test_scalarizers_take_one_pass():
    assert describe(Balancer()).startswith(
        f"A step takes 1 backward pass, no rows of gradients kept. Shared parameters: {SHARED}."
    )


def test_what_is_evaluated_again():
    assert "again" not in describe(Balancer())
    assert "one forward pass after" not in describe(Balancer())
    assert "one forward pass after the optimizer's step" in describe(Balancer(FAMO(3)))
    assert "JointSAM evaluates the batch again" in describe(Balancer(sharpness=JointSAM()))
    text = describe(Balancer(PCGradWeighting(), sharpness=TaskSAM()))
    assert "TaskSAM evaluates the batch again 3 times, with rows of its own." in text
    late = TaskSAM(perturbation="joint", start=0.7, every=2)
    text = describe(Balancer(PCGradWeighting(), sharpness=late))
    assert "again, with rows of its own, in 1 of 2 steps after 70% of the training." in text


def test_rows_and_their_memory():
    assert "3 backward passes, at most 0.0 MiB of rows" in describe(Balancer(PCGradWeighting()))
    assert "3 backward passes, 0.0 MiB of rows" in describe(Balancer(GradDrop()))


def test_what_several_processes_exchange():
    """As docs/distributed.md has it, and tests/contract/test_bytes.py measures."""

    def exchanged(*args, **options):
        return describe(Balancer(*args, **options)).partition("With several processes, ")[2]

    assert exchanged() == "the losses and one gradient are summed over them."
    rows = "the losses and 3x3 products are summed over them, 3 rows are summed and scattered, and "
    assert exchanged(PCGradWeighting()) == rows + "one vector is gathered."
    for by_columns in (GradDrop(), MoCo(3), ExcessMTL(3)):
        assert exchanged(by_columns) == rows + "one vector is gathered."
    assert exchanged(First()) == rows + "3 rows are gathered."
    at_most_one = exchanged(PCGradWeighting(), max_rows=1)
    assert "6 rows are summed and scattered, and one gradient is summed." in at_most_one
    above = exchanged(PCGradWeighting(), level="representation")
    assert above == "the losses, 3x3 products and one gradient are summed over them."
    assert exchanged(MoCo(3), level="representation") == above
    above = exchanged(First(), level="representation")
    assert above.endswith("summed over them, and 3 gradients of the representation are gathered.")


def test_rows_that_are_remembered():
    assert "3 backward passes, 0.0 MiB of rows, as much again kept" in describe(Balancer(MoCo(3)))
    assert "as much again" not in describe(Balancer(MoCo(1)), num_tasks=1)
    assert "as much again" not in describe(Balancer(PCGradWeighting()))


def test_memory_is_that_of_all_rows():
    model = MultiTaskModel(
        nn.Linear(1024, 1024), {"a": nn.Linear(1024, 1), "b": nn.Linear(1024, 1)}
    )
    assert "8.0 MiB of rows" in describe_cost(Balancer(GradDrop()), model, 2)
    assert "16.0 MiB of rows" in describe_cost(Balancer(GradDrop()), model.double(), 2)


def test_regularizers_take_a_pass_of_their_own_beside_rows():
    activity = [Activity()]
    assert "takes 1 backward pass," in describe(Balancer(regularizers=activity))
    assert "takes 4 backward passes" in describe(Balancer(GradDrop(), regularizers=activity))
    text = describe(Balancer(GradDrop(), regularizers=activity, level="representation"))
    assert "1 through the backbone" in text


def test_at_the_representation():
    text = describe(Balancer(PCGradWeighting(), level="representation"))
    assert "3 backward passes through the heads, 1 through the backbone" in text
    assert "3x3 products" in text


def test_one_task_is_plain_training():
    assert "takes 1 backward pass," in describe(Balancer(PCGradWeighting()), num_tasks=1)


def test_second_derivatives():
    text = describe(Balancer(regularizers=[TSR()]))
    assert "second derivatives through the heads." in text
