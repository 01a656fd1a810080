"""The networks of `trainers.models` in their small sizes, compiled for this machine and verified."""

from pathlib import Path

import pytest
import torch

import trainers
from bibench_tvm import compile_model

PRODUCTS = {"pointnet": 2}  # of activations, that stay float: PointNet's matrices of floats


# The other three have the layers of one of these: dfsmn, bert_tiny4, resnet34.
NAMES = [
    "bert_base@small",
    "bert_tiny4@small",
    "dfsmn@small",
    "mobilenet_v2@small",
    "pointnet@small",
    "pointnet_vanilla@small of 5 parts",
    "reactnet_a@small",
    "resnet20@small",
    "resnet34@small",
    "ssd300@small",
    "vgg_small@small",
]


@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_and_verifies(name: str, tmp_path: Path) -> None:
    name, _, parts = name.partition(" of ")
    torch.manual_seed(0)
    network = trainers.create_model(name, **({"parts": 5} if parts else {}))
    model = trainers.binarize(network, "bnn")
    inputs = trainers.example_inputs_of(model)
    if isinstance(inputs, tuple):  # statistics as a training leaves them; text has none
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None
        with torch.no_grad():
            model(torch.randn(8, *inputs[0].shape[1:]))
    manifest = compile_model(model.eval(), target="host", out=tmp_path, verify=1).manifest
    assert manifest["verification"]["passed"] is True
    layers = {layer["name"]: layer["binarized"] for layer in manifest["layers"] if layer["op"] != "matmul"}
    assert layers == {layer.name: layer.binary for layer in trainers.binarization_report(model)}
    products = [layer for layer in manifest["layers"] if layer["op"] == "matmul" and not layer["binarized"]]
    assert len(products) == PRODUCTS.get(name.removesuffix("@small"), 0)
    assert all(layer["reason"] for layer in products)
