"""What a run says about its cost before it starts."""

from mtl import Balancer
from mtl.aggregation import GradDrop, PCGradWeighting
from mtl.regularizers import TSR
from mtl.report import describe_cost
from mtl.scalarization import FAMO
from mtl.sharpness import JointSAM
from tests.support import make_model

MODEL, _ = make_model()
SHARED = 5 * 16 + 16 + 16 * 8 + 8


def describe(balancer, num_tasks=3):
    return describe_cost(balancer, MODEL, num_tasks)


def test_scalarizers_take_one_pass():
    assert describe(Balancer()).startswith(
        f"A step takes 1 backward pass. Shared parameters: {SHARED}."
    )
    assert "evaluated again" not in describe(Balancer())
    assert "evaluated again" in describe(Balancer(FAMO(3)))
    assert "evaluated again" in describe(Balancer(sharpness=JointSAM()))


def test_rows_and_their_memory():
    assert "3 backward passes, at most 0.0 MiB of rows" in describe(Balancer(PCGradWeighting()))
    assert "3 backward passes, 0.0 MiB of rows" in describe(Balancer(GradDrop()))
    assert "the losses and 3 gradients are summed" in describe(Balancer(GradDrop()))


def test_at_the_representation():
    text = describe(Balancer(PCGradWeighting(), level="representation"))
    assert "3 backward passes through the heads, 1 through the backbone" in text
    assert "3x3 products" in text


def test_one_task_is_plain_training():
    assert "1 backward pass." in describe(Balancer(PCGradWeighting()), num_tasks=1)


def test_second_derivatives():
    text = describe(Balancer(regularizers=[TSR()]))
    assert "1 backward pass, second derivatives through the heads." in text
