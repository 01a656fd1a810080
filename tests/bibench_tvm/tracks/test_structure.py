"""Equation 41 against a plain one, and table 7's order."""

import statistics

import torch

from bibench_tvm.tracks.structure import STRUCTURES, SubMlp, binarization_error
from trainers import binarize


def test_the_order_of_table_7() -> None:
    means = {}
    for name, structure in STRUCTURES.items():
        errors = binarization_error(structure)
        assert len(errors) == 16
        means[name] = statistics.fmean(errors.values())
    assert means["cnn"] < means["mlp"] < means["transformer"]


def test_equation_41_by_hand() -> None:
    torch.manual_seed(0)
    model = SubMlp(64)
    x = torch.randn(1, 64, 64)
    whole = model(x)
    signs = binarize(model, "bnn", keep=[])(x)
    difference = whole / whole.std() - signs / signs.std()
    expected = difference.abs().sum() / difference.numel()
    assert binarization_error(STRUCTURES["mlp"])[64, 64] == float(expected.detach())
