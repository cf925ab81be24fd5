"""Every test starts from the same seed, without network, and with a cache folder of its own."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish():
    """Modules and thousands of tests stay: the garbage collector need not look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
