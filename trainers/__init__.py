"""Binarization algorithms, networks and their training in PyTorch. Knows torch and not tvm."""

from trainers.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainers.convert import binarization_report, binarize, list_algorithms, set_progress
from trainers.models import create_model, list_models

__all__ = [
    "CheckpointError",
    "binarization_report",
    "binarize",
    "create_model",
    "list_algorithms",
    "list_models",
    "load_checkpoint",
    "save_checkpoint",
    "set_progress",
]
