"""The pipeline, as a reader finds it."""

import importlib
import re

import pytest
import torch

import trainers
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import import_model
from relay_passes import finish, lower

OF_TVM = {"share_values", "fold_constants", "fuse_rest"}


@pytest.fixture(scope="module")
def phases() -> list[str]:
    """Those that the pipeline shows, of a network with everything asked for."""
    seen: list[str] = []
    target = resolve_target("arm_cpu")
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3)
    model = trainers.binarize(torch.nn.Sequential(*layers), "bnn", keep=["0"])
    imported = import_model(model.eval(), example_inputs=torch.zeros(1, 3, 8, 8))

    def watch(phase: str, module: object) -> None:
        seen.append(phase)

    observed = lower(
        imported.module, imported.layer_names, target.kernels, observe=True, watch=watch
    ).observed
    assert observed
    ranges = dict.fromkeys(observed, 1.0)
    lowered = lower(imported.module, imported.layer_names, target.kernels, ranges=ranges, watch=watch)
    finish(lowered.module, target.tvm, target.kernels, watch)
    return list(dict.fromkeys(seen))


def test_every_phase_is_a_file_that_says_what_it_requires_and_ensures(phases: list[str]) -> None:
    assert len(phases) > 14
    for phase in sorted({*phases, "copy_outputs", "write_in_place"} - OF_TVM):
        words = importlib.import_module(f"relay_passes.{phase}").__doc__
        assert re.search(r"^Requires: .*\nEnsures: ", words, re.MULTILINE | re.DOTALL), phase


def test_watching_changes_nothing() -> None:
    target = resolve_target("arm_cpu")
    model = trainers.binarize(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)), "bnn")
    imported = import_model(model.eval(), example_inputs=torch.zeros(2, 16))
    arguments = imported.module, imported.layer_names, target.kernels
    shown = lower(*arguments, watch=lambda phase, module: module.script())
    assert shown.module.script() == lower(*arguments).module.script()
