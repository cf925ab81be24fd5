"""With parameters sharded over 2 processes (FSDP2), the update is that of one on the joint batch."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from mtl import Balancer, MTLModule
from mtl.aggregation import MGDAWeighting
from mtl.errors import UnsupportedError
from tests.support import VARIANTS, ToyData, make_balancer, make_model

WORLD = 2
ROWS = 8
COMMON = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}


def supported(variant):
    balancer = make_balancer(variant)
    model, tasks = make_model()
    del tasks
    try:
        return bool(balancer) and model is not None
    except UnsupportedError:
        return False
