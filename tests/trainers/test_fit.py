"""Training on a toy task: it learns, goes on after an interruption, and says what it cannot go on from."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trainers
from trainers.fit import fit
from trainers.tasks import accuracy


class Toy:
    """Which half of the image is brighter."""

    sizes = {"num_classes": 2, "in_channels": 1}
    example_inputs: Any = torch.zeros(1, 1, 32, 32)
    metric = "accuracy"
    licence = published = "of this file"
    splits = {"train": 64, "test": 64}

    def __init__(self, data: Path | None = None, stop_after: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(64) % 2
        self.images = torch.randn(64, 1, 32, 32, generator=generator)
        self.images[self.labels == 0, :, :16] += 1
        self.images[self.labels == 1, :, 16:] += 1
        self.stop_after = stop_after

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if self.stop_after == 0:
            raise KeyboardInterrupt
        self.stop_after = None if self.stop_after is None else self.stop_after - 1
        order = torch.randperm(limit or 64, generator=generator) if generator else torch.arange(64)
        for chosen in order.split(batch_size):
            yield self.images[chosen], self.labels[chosen]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self, results: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        return {"accuracy": accuracy(results)}


class Tiny(nn.Sequential):
    """Small enough for a test; stands in for resnet20 and is never built from a checkpoint."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 4, 4),
            nn.Hardtanh(),
            nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8),
            nn.Flatten(),
            nn.Linear(288, 2),
        )


METADATA: dict[str, Any] = {
    "arch": "resnet20",
    "algorithm": "recu",
    "variant": "paper",
    "sizes": Toy.sizes,
}


def train(out: Path, task: Toy, algorithm: str = "recu", **changes: Any) -> tuple[float, nn.Module]:
    torch.manual_seed(0)
    model = trainers.binarize(Tiny(), algorithm)
    settings = {
        "epochs": 4,
        "batch_size": 16,
        "lr": 0.01,
        "seed": 0,
        "threads": 1,
        "metadata": METADATA,
    } | changes
    return fit(model, task, out=out, **settings)["accuracy"], model


@pytest.mark.parametrize("algorithm", trainers.list_algorithms())
def test_every_algorithm_learns(tmp_path: Path, algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy, _ = train(tmp_path, Toy(), algorithm, epochs=6)
    assert accuracy > 0.8
    written = capsys.readouterr()
    assert written.out == ""
    assert "epoch 6 of 6, step 4 of 4, loss" in written.err
    assert "left" in written.err
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["extra"]["test_accuracy"] == accuracy


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    _, whole = train(tmp_path / "a", Toy())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", Toy(stop_after=2))
    assert not (tmp_path / "b" / "checkpoint.pt").exists()
    _, resumed = train(tmp_path / "b", Toy())
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    assert resumed.get_buffer("2.tau").item() == pytest.approx(0.99)


def test_a_training_stops_at_nan(tmp_path: Path) -> None:
    task = Toy()
    train(tmp_path, task, epochs=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "state.pt").unlink()
    task.images[3] = float("nan")
    with pytest.raises(ValueError, match="The loss is nan in epoch 1, step ., so the training stopped"):
        train(tmp_path, task, "bnn", epochs=3)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not (tmp_path / "state.pt").exists()
    with pytest.raises(ValueError, match="has values that are not numbers after epoch 1, step 1,"):
        train(tmp_path, Toy(), "bnn", epochs=1, batch_size=64, lr=float("inf"))


def test_states_it_cannot_go_on_from(tmp_path: Path) -> None:
    train(tmp_path, Toy(), epochs=1)
    with pytest.raises(ValueError, match=r"holds a training with lr 0\.01, not 0\.02; name another folder"):
        train(tmp_path, Toy(), epochs=1, lr=0.02)
    with pytest.raises(ValueError, match="with optimizer 'Adam', not 'SGD'"):
        train(tmp_path, Toy(), epochs=1, optimizer=torch.optim.SGD)
    (tmp_path / "state.pt").write_bytes(b"no")
    with pytest.raises(trainers.CheckpointError, match="is damaged"):
        train(tmp_path, Toy(), epochs=1)
    torch.save({"arguments": {}}, tmp_path / "state.pt")
    with pytest.raises(trainers.CheckpointError, match="not the state of this training"):
        train(tmp_path, Toy(), epochs=1)


def test_optimizer_and_schedule_are_arguments(tmp_path: Path) -> None:
    rates: list[float] = []

    class Recording(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    train(tmp_path, Toy(), epochs=1, lr=0.5, optimizer=Recording, schedule=lambda progress: 1 - progress)
    assert rates == [0.5, 0.375, 0.25, 0.125]
