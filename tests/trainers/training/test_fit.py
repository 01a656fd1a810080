"""Trainings of toys: they learn, stop at what is no number, keep the best, and end early."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainers
from tests.trainers.toy_image import Brighter
from tests.trainers.toy_text import HasMark
from tests.trainers.training.conftest import Train
from trainers.tasks import DataError


@pytest.mark.parametrize("algorithm", trainers.list_algorithms())
def test_every_algorithm_learns(
    train: Train, tmp_path: Path, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, _ = train(tmp_path, Brighter(), algorithm, epochs=8)
    assert metrics["accuracy"] > 0.8
    written = capsys.readouterr()
    assert written.out == ""
    assert "epoch 8 of 8, step 4 of 4, loss" in written.err
    assert "left" in written.err
    network, metadata = trainers.load_checkpoint(tmp_path / "checkpoint.pt")
    assert metadata["extra"]["test_accuracy"] == metrics["accuracy"]
    assert (metadata["extra"]["recipe"]["epochs"], metadata["extra"]["seed"]) == (8, 0)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in log] == [(3, 10), (5, 20), (8, 30), (8, 32)]
    assert log[1]["lr"] == pytest.approx(0.01 * (1 + math.cos(math.pi * 19 / 32)) / 2)


def test_a_loss_that_is_no_number_ends_it(train: Train, tmp_path: Path) -> None:
    task = Brighter()
    train(tmp_path, task, epochs=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "state.pt").unlink()
    task.images[3] = float("nan")
    with pytest.raises(ValueError, match=r"loss is nan in epoch 1, step .: the inputs of the batch have"):
        train(tmp_path, task, "bnn", epochs=3)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not (tmp_path / "state.pt").exists()


def test_a_network_is_trained_by_its_own_loss(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.trainers import toy_image

    class Knows(toy_image.Tiny):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(outputs, targets)

    class Ignorant(Brighter):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the task cannot know it")

    monkeypatch.setattr(toy_image, "Tiny", Knows)
    assert train(tmp_path, Ignorant(), "fp32", epochs=8)[0]["accuracy"] > 0.8


class Root(nn.Module):
    """nan for what is negative."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sqrt()


@pytest.mark.parametrize("place", [1, 3])
def test_the_layer_that_it_comes_from_is_named(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    from tests.trainers import toy_image

    class Broken(toy_image.Tiny):
        def __init__(self) -> None:
            super().__init__()
            self[place] = Root()

    monkeypatch.setattr(toy_image, "Tiny", Broken)
    with pytest.raises(ValueError, match=f"epoch 1, step 1: the layer {place} gives values that are not"):
        train(tmp_path, Brighter(), "fp32", epochs=1)


def test_a_gradient_that_is_no_number_ends_it(train: Train, tmp_path: Path) -> None:
    class Steep(Brighter):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return (outputs - outputs.detach()).abs().sqrt().sum()

    with pytest.raises(ValueError, match=r"gradient of 0.weight has values that are not numbers in epoch 1"):
        train(tmp_path, Steep(), "fp32", epochs=1)


def test_weights_that_are_no_numbers_are_not_kept(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        train(tmp_path, Brighter(), "fp32", optimizer="sgd", lr=float("inf"), epochs=1, batch_size=64)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "state.pt").exists()


def test_the_best_weights_are_kept(train: Train, tmp_path: Path) -> None:
    metrics, _ = train(tmp_path, Brighter(), "bnn", holdout=0.5, select="best", epochs=6)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = [line["validation"]["accuracy"] for line in log if "validation" in line]
    assert len(found) == 6
    best = trainers.load_checkpoint(tmp_path / "best.pt")
    assert best[1]["extra"]["epoch"] == found.index(max(found)) + 1
    kept, _ = trainers.load_checkpoint(tmp_path / "checkpoint.pt")
    assert all(torch.equal(value, best[0].state_dict()[name]) for name, value in kept.state_dict().items())


def test_it_ends_where_nothing_becomes_better(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"holdout": 0.5, "patience": 2, "lr": 1e-30, "epochs": 9}
    train(tmp_path, Brighter(), "bnn", **settings)
    assert "epoch 3 of 9" in capsys.readouterr().err
    train(tmp_path, Brighter(), "bnn", **settings)
    assert "epoch" not in capsys.readouterr().err


def test_what_it_cannot_do(train: Train, tmp_path: Path) -> None:
    class Judged(Brighter):
        splits = {"noise/1": 64, "noise/2": 64}

    with pytest.raises(DataError, match="for evaluation only"):
        train(tmp_path, Judged())
    with pytest.raises(ValueError, match=r"needs a validation, .* set holdout=0\.1"):
        train(tmp_path, Brighter(), patience=1)
    with pytest.raises(ValueError, match="distils a float network, but there is none"):
        train(tmp_path, Brighter(), distillation=0.5)
    with pytest.raises(DataError, match="2 samples are too few for 2 batches"):
        train(tmp_path, Brighter(), limit_train=2, devices=2)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        train(tmp_path / "file" / "out", Brighter())


def test_text_is_trained_alike(train: Train, tmp_path: Path) -> None:
    metrics, _ = train(tmp_path, HasMark(), "reactnet", epochs=8, lr=0.03, batch_size=32)
    assert metrics["accuracy"] > 0.9
