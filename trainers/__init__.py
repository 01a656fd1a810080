"""Binarization algorithms, networks and their training in PyTorch. Knows torch and not tvm."""

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
