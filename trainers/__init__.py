"""Binarization algorithms, networks and their training in PyTorch. Knows torch and not tvm."""

import os

from trainers.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainers.convert import (
    binarization_report,
    binarize,
    list_algorithms,
    list_hyperparameters,
    set_progress,
)
from trainers.initialise import initialise
from trainers.inputs import example_inputs_of
from trainers.models import create_model, default_sizes, list_models

__all__ = [
    "CheckpointError",
    "binarization_report",
    "binarize",
    "create_model",
    "default_sizes",
    "example_inputs_of",
    "initialise",
    "list_algorithms",
    "list_hyperparameters",
    "list_models",
    "load_checkpoint",
    "save_checkpoint",
    "set_progress",
]

# PyTorch 2.13's own code for AVX-512 writes beyond its memory in the backward pass of a 1x1 convolution with
# strides, of an odd batch on two threads. That for AVX2 does not, and trains as fast. It is read at the first
# convolution.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
