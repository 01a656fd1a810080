"""Every kernel of the known networks, on every family of processors, is the one that it was.

A change that should leave the kernels alone shows here that it did; one that should not is seen to be meant,
kernel by kernel, in the difference of `golden_kernels.json`, which `pytest --renew-golden` writes anew.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import trainers
from bibench_tvm.importer import Imported, import_model
from bibench_tvm.importer.bundled import NETWORK
from relay_passes import lower
from schedules.targets import KernelTarget
from schedules.targets.choose import ALL

GOLDEN = Path(__file__).with_name("golden_kernels.json")


def dense() -> nn.Module:
    """The layers of a binary MLP for images: wide, narrow, of uneven width, and one over many rows."""
    return nn.Sequential(
        nn.Linear(192, 192),
        nn.BatchNorm1d(49),
        nn.Linear(192, 768),
        nn.Hardtanh(),
        nn.Linear(768, 192),
        nn.Flatten(),
        nn.Linear(49 * 192, 100),
        nn.Linear(100, 10),
    )


def imported(network: str) -> Imported:
    if network == "bundled":
        return import_model(NETWORK)
    model = dense() if network == "dense" else trainers.create_model(network)
    example = torch.zeros(1, 49, 192) if network == "dense" else torch.zeros(1, *model.input_shape)
    return import_model(trainers.binarize(model, "bnn").eval(), example_inputs=example)


def digests(network: Imported, target: KernelTarget, *, int8: bool) -> dict[str, str]:
    """Of the text of each kernel, by its name."""
    ranges = None
    if int8:
        observed = lower(network.module, network.layer_names, target, observe=True).observed
        ranges = dict.fromkeys(observed, 1.0)
    module = lower(network.module, network.layer_names, target, ranges=ranges).module
    return {
        variable.name_hint: hashlib.sha256(function.script().encode()).hexdigest()[:16]
        for variable, function in sorted(module.functions.items(), key=lambda item: item[0].name_hint)
        if variable.name_hint != "main"
    }


@pytest.mark.parametrize("network", ["bundled", "dense", "resnet18", "resnet20", "vgg_small"])
def test_the_kernels_are_those_that_they_were(network: str, request: pytest.FixtureRequest) -> None:
    torch.manual_seed(0)
    source = imported(network)
    found = {
        f"{network} {mode} {target.name}": digests(source, target, int8=mode == "int8")
        for mode in (("float32", "int8") if network in ("bundled", "dense") else ("float32",))
        for target in ALL
    }
    golden = json.loads(GOLDEN.read_text())
    if request.config.getoption("--renew-golden"):
        GOLDEN.write_text(json.dumps(golden | found, indent=1, sort_keys=True) + "\n")
        return
    assert found == {key: value for key, value in golden.items() if key.split()[0] == network}
