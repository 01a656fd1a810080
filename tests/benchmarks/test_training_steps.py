"""The hand-written network that training is timed beside is the binary one; its command."""

import json

import torch
from typer.testing import CliRunner

import trainers
from benchmarks.training_steps import _by_hand, app


def test_the_hand_written_network_is_bnn() -> None:
    binary = trainers.binarize(trainers.create_model("resnet20@small"), "bnn")
    plain = _by_hand("resnet20@small")
    plain.load_state_dict(binary.state_dict())
    x = torch.randn(3, 3, 32, 32)
    gradients = []
    for model in (binary, plain):
        model.train()(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_command() -> None:
    options = ["--arch", "resnet20@small", "--batch-size", "2", "--rounds", "3", "--json"]
    ratios = json.loads(CliRunner().invoke(app, options).stdout)["ratios"]
    assert ratios.keys() == {"hand-written", *trainers.list_algorithms()}
    assert ratios["hand-written"]["median"] == 1
