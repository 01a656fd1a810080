"""A training that was stopped ends as one that was not, and says what it cannot go on from."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainers
from tests.trainers.toy_image import Brighter
from tests.trainers.toy_text import HasMark
from tests.trainers.training.conftest import Train
from trainers.tasks.standin_detection import StandinDetection
from trainers.training.fit import fit
from trainers.training.recipe import Recipe


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"batch_size": 8, "accumulate": 3, "algorithm": "fda"},
    "averaged": {"ema": 0.5, "workers": 1},
    "two stages": {"stages": 2, "decay_binary": 0.1, "optimizer": "sgd", "schedule": "step"},
    "validated": {"holdout": 0.25, "select": "best", "optimizer": "adamw", "warmup": 0.2, "clip": 1.0},
    "bfloat16": {"precision": "bf16-mixed", "accelerator": "cpu"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_goes_on_after_any_batch(train: Train, tmp_path: Path, name: str) -> None:
    settings = SETTINGS[name]
    _, whole = train(tmp_path / "whole", Brighter(), **settings)
    for stop_after in (2, 7):
        task = Brighter()
        task.stop_after = -1 if settings.get("workers") else stop_after  # a worker would stop itself alone
        task.number = signal.SIGINT if stop_after == 2 else signal.SIGTERM
        if settings.get("workers"):
            continue
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", task, **settings)
        assert not (tmp_path / "parts" / "checkpoint.pt").exists()
    _, resumed = train(tmp_path / "parts", Brighter(), **settings)
    assert same(whole, resumed)
    first, second = (
        trainers.load_checkpoint(tmp_path / part / "checkpoint.pt")[0] for part in ("whole", "parts")
    )
    assert same(first, second)
    assert (tmp_path / "whole/log.jsonl").read_bytes() == (tmp_path / "parts/log.jsonl").read_bytes()


def test_the_number_of_workers_changes_nothing(train: Train, tmp_path: Path) -> None:
    assert same(
        *(train(tmp_path / str(workers), Brighter(), workers=workers, epochs=1)[1] for workers in (0, 2))
    )


# Trains slowly, so that it can be killed in the middle of an epoch.
VICTIM = """
import sys, time
from pathlib import Path
from tests.trainers.toy_image import Brighter, tiny
from tests.trainers.toy_text import HasMark, toy_text
from tests.trainers.training.conftest import train_toy
from trainers.models import models

models._entries.update(tiny=tiny, toy_text=toy_text)
kind = {"Brighter": Brighter, "HasMark": HasMark}[sys.argv[1]]
class Slow(kind):
    def batch(self, *arguments):
        time.sleep(0.05)
        return super().batch(*arguments)
train_toy(Path(sys.argv[2]), Slow(), "reactnet", save_every=0.1)
"""


@pytest.mark.parametrize("kind", [Brighter, HasMark])
def test_it_goes_on_after_being_killed(train: Train, tmp_path: Path, kind: Any) -> None:
    _, whole = train(tmp_path / "whole", kind(), "reactnet")
    state = tmp_path / "parts" / "state.pt"
    for wait in (0.0, 0.3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, kind.__name__, str(tmp_path / "parts")]
        ) as victim:
            while not state.exists() or state.stat().st_mtime_ns == before:
                time.sleep(0.01)
                assert victim.poll() is None
            time.sleep(wait)
            victim.kill()
    assert torch.load(state, weights_only=True)["batches"] < 4 * (4 if kind is Brighter else 16)
    _, resumed = train(tmp_path / "parts", kind(), "reactnet")
    assert same(whole, resumed)
    assert (tmp_path / "whole/log.jsonl").read_bytes() == (tmp_path / "parts/log.jsonl").read_bytes()


def test_a_finished_training_can_go_on(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, short = train(tmp_path, Brighter(), schedule="constant", epochs=2)
    _, longer = train(tmp_path, Brighter(), schedule="constant", epochs=3, save_every=1)
    assert "The 2 epochs are done; the schedule goes on as that of 3 has it." in capsys.readouterr().err
    _, whole = train(tmp_path / "whole", Brighter(), "bnn", schedule="constant", epochs=3)
    train(tmp_path / "bnn", Brighter(), "bnn", schedule="constant", epochs=2)
    _, longer = train(tmp_path / "bnn", Brighter(), "bnn", schedule="constant", epochs=3)
    assert same(whole, longer)
    with pytest.raises(ValueError, match="of 3 epochs, not of 2"):
        train(tmp_path, Brighter(), schedule="constant", epochs=2)


def test_a_state_without_its_log(train: Train, tmp_path: Path) -> None:
    """As on another machine: the log begins with what is trained there, and not with so many zeros."""
    train(tmp_path, Brighter(), epochs=1)
    (tmp_path / "log.jsonl").unlink()
    train(tmp_path, Brighter(), epochs=4)
    first, *_ = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(first)["epoch"] > 1


def test_states_it_cannot_go_on_from(train: Train, tmp_path: Path) -> None:
    train(tmp_path, Brighter(), epochs=1)
    with pytest.raises(ValueError, match=r"a training with recipe lr 0\.01, not 0\.02; name another folder"):
        train(tmp_path, Brighter(), epochs=1, lr=0.02)
    with pytest.raises(ValueError, match="with seed 0, not 1"):
        train(tmp_path, Brighter(), epochs=1, seed=1)
    with pytest.raises(ValueError, match="with algorithm 'recu', not 'bnn'"):
        train(tmp_path, Brighter(), "bnn", epochs=1)
    other = Brighter()
    other.identity = "1"
    with pytest.raises(ValueError, match="with data '0', not '1'"):
        train(tmp_path, other, epochs=1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for content, sentence in [
        ({"arguments": {}}, "not the state of a training"),
        (state | {"version": 7}, "of version 7, and this program reads 1"),
        ({key: value for key, value in state.items() if key != "stage"}, "not a whole state.* no 'stage'"),
        (state | {"more": 1}, "not a whole state"),
        (state | {"arguments": [1]}, "its arguments: it has to be a mapping, and is a list"),
        (state | {"epochs": "2"}, "its epochs: it has to be a whole number, and is a text"),
        (state | {"batches": -1}, "its batches: it has to be a whole number, 0 or more"),
        (state | {"seconds": None}, "its seconds: it has to be a number, and is nothing"),
        (state | {"best": "all"}, "its best: "),
        (state | {"model": {"a": 1}}, "its model"),
        (state | {"model": {}}, "is not the state of this network; remove it to start anew"),
        (state | {"optimizer": {}}, "is not the state of this network; remove it to start anew"),
    ]:
        torch.save(content, tmp_path / "state.pt")
        with pytest.raises(trainers.CheckpointError, match=sentence):
            train(tmp_path, Brighter(), epochs=2)
    (tmp_path / "state.pt").write_bytes(b"no")
    with pytest.raises(trainers.CheckpointError, match="is damaged"):
        train(tmp_path, Brighter(), epochs=1)


class FewObjects(StandinDetection):
    """A part of the stand-in, whose `batch` sends this process a signal when it was called often enough."""

    splits: Any = {"train": 24, "test": 4}
    stop_after = -1

    def batch(self, split: str, indices: Any, generator: Any = None) -> Any:
        self.stop_after -= split == "train"
        if self.stop_after == 0:
            signal.raise_signal(signal.SIGTERM)
        return super().batch(split, indices, generator)


@pytest.mark.parametrize("arch", ["ssd300@small", "faster_rcnn@small"])
def test_a_detector_goes_on_in_the_middle_of_an_epoch(tmp_path: Path, arch: str) -> None:
    task = FewObjects()

    def go(folder: Path) -> nn.Module:
        torch.manual_seed(0)
        model = trainers.binarize(trainers.create_model(arch, **task.sizes), "reactnet")
        metadata = {"arch": arch, "sizes": task.sizes, "algorithm": "reactnet", "variant": "paper"}
        fit(model, task, Recipe(), out=folder, metadata=metadata, epochs=2, batch_size=8)
        return model

    whole = go(tmp_path / "whole")
    task.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "parts")
    assert 3 < torch.load(tmp_path / "parts/state.pt", weights_only=True)["batches"] < 6
    assert same(whole, go(tmp_path / "parts"))
