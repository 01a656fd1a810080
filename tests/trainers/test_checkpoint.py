"""Checkpoints go round, and files that cannot be used are refused with a sentence."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import trainers
from trainers import CheckpointError
from trainers.models import models

WHAT: dict[str, Any] = {
    "arch": "resnet20",
    "algorithm": "recu",
    "variant": "paper",
    "sizes": {"num_classes": 4, "in_channels": 1},
}


def build(algorithm: str = "recu", keep: list[str] | None = None) -> torch.nn.Module:
    torch.manual_seed(0)
    return trainers.binarize(
        trainers.create_model("resnet20", num_classes=4, in_channels=1), algorithm, keep=keep
    ).eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    trainers.save_checkpoint(tmp_path / "model.pt", build(), **WHAT, extra={"test_accuracy": 0.5})
    return tmp_path / "model.pt"


def change(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    for key, value in changes.items():
        if key == "weights":
            state.update(value)
        elif value is None:
            del content[key]
        else:
            content[key] = value
    torch.save(content, path)


def refuse(path: Path, sentence: str, **arguments: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        trainers.load_checkpoint(path, **arguments)


@pytest.mark.parametrize(
    ("algorithm", "keep"),
    [*((name, None) for name in trainers.list_algorithms()), ("recu", []), ("fda", ["layer1", "fc"])],
)
def test_round_trip(tmp_path: Path, algorithm: str, keep: list[str] | None) -> None:
    model = build(algorithm, keep)
    what = {**WHAT, "algorithm": algorithm, "keep": keep}
    trainers.save_checkpoint(tmp_path / "sub" / "model.pt", model, **what, extra={"epochs": 3})
    loaded, metadata = trainers.load_checkpoint(tmp_path / "sub" / "model.pt")
    kept = keep if keep is not None or algorithm == "fp32" else ["conv1", "fc"]
    assert metadata == {**what, "hyperparameters": {}, "keep": kept, "extra": {"epochs": 3}}
    assert not loaded.training
    x = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(x), model(x))
    assert all(p.requires_grad for p in loaded.parameters())
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["model.pt"]


@pytest.mark.parametrize("arch", ["faster_rcnn@small", "pointnet@small", "ssd300@small"])
def test_what_no_checkpoint_holds_is_made_again(arch: str, tmp_path: Path) -> None:
    """Anchors, the identity: buffers whose values do not come with the weights."""
    model = trainers.create_model(arch).eval()
    assert model.state_dict().keys() < {
        name for name, _ in [*model.named_parameters(), *model.named_buffers()]
    }
    trainers.save_checkpoint(tmp_path / "model.pt", model, arch=arch, sizes={}, algorithm="fp32")
    again, _ = trainers.load_checkpoint(tmp_path / "model.pt")
    x = torch.randn(1, *model.example_inputs[0].shape[1:])
    with torch.inference_mode():
        found, expected = again(x), model(x)
    for ours, theirs in zip(
        *(found, expected) if isinstance(found, tuple) else ([found], [expected]), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("algorithm", trainers.list_algorithms())
def test_float_weights_load_into_a_binary_network(algorithm: str) -> None:
    torch.manual_seed(1)
    state = trainers.create_model("resnet20", num_classes=4, in_channels=1).state_dict()
    model = build(algorithm)
    own = {name: value.clone() for name, value in model.state_dict().items() if name not in state}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.load_state_dict(state, strict=True)
    assert bool(said) is bool(own)
    now = model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in state.items())
    assert all(torch.equal(now[name], value) for name, value in own.items() if not name.endswith("limits"))
    if algorithm in (
        "xnorpp",
        "fda",
        "recu",
    ):  # but of what a layer has of its own, all has to be there or none
        own.pop(next(iter(own)))
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict(state | own, strict=True)


def test_a_failed_save_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        trainers.save_checkpoint(path, build(), **WHAT, extra={"f": lambda: None})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def test_files_that_are_none(path: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere.pt", "There is no file")
    refuse(tmp_path, "is damaged, or is not a file of torch.save")
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(content)
        refuse(path, "is damaged, or is not a file of torch.save")
    torch.save(build(), path)  # a pickled module could run any code
    refuse(path, "is damaged, or is not a file of torch.save")
    torch.save([1, 2], path)
    refuse(path, "holds a list, but a checkpoint is a dictionary")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "other"}, "is of the format 'other', but should be of 'bibench_tvm.checkpoint'"),
        ({"version": 3}, "has version 3 of its format, but this program reads 1 and 2"),
        ({"version": True}, "has version True of its format"),
        ({"arch": None}, "its 'arch' is missing"),
        ({"sizes": [4]}, "its 'sizes' is a list"),
        ({"sizes": {4: 4}}, "has a 'sizes' whose keys are not all names"),
        ({"sizes": {"num_classes": "4"}}, "num_classes has to be a whole number from 1 on, but is '4'."),
        ({"sizes": {"num_classes": 10**30}}, "cannot be built"),
        ({"sizes": {"num_classes": -1}}, "num_classes has to be a whole number"),
        ({"sizes": {"words": 1}}, "resnet20 has no size 'words'; it takes num_classes, in_channels."),
        (
            {"sizes": {"num_classes": 10**9, "in_channels": 1}},
            "its fc.weight has the shape (4, 64), but should have (1000000000, 64)",
        ),
        ({"hyperparameters": None}, "its 'hyperparameters' is missing"),
        ({"hyperparameters": {"tau_end": 2}}, "cannot be built. ReCU's tau_end is between 0.5 and 1"),
        ({"hyperparameters": {"x" * 10**6: 2}}, "recu has no hyper-parameter a str; it takes tau_start"),
        ({"keep": [3]}, "has a 'keep' that is not a list of names"),
        ({"keep": ["layer9"]}, "There is no module to keep 'layer9'; did you mean 'layer"),
        ({"arch": "resnet21"}, "There is no model 'resnet21'; did you mean 'resnet2"),
        ({"algorithm": "recoup"}, "There is no algorithm 'recoup'"),
        ({"arch": "resnet18"}, "is not of a resnet18 with algorithm recu (paper)"),
        ({"state_dict": None}, "holds no weights"),
        ({"state_dict": {"fc.bias": 3}}, "its 'fc.bias' is a int, not a tensor"),
        ({"weights": {"fc.bias": torch.full((4,), float("nan"))}}, "NaN or infinite in fc.bias."),
        ({"weights": {"fc.bias": torch.full((4,), float("inf"))}}, "NaN or infinite in fc.bias."),
        (
            {"weights": {"fc.bias": torch.zeros(4, dtype=torch.int32)}},
            "numbers of type torch.int32 in fc.bias",
        ),
        (
            {"weights": {"fc.bias": torch.zeros(1).expand(4)}},
            "does not hold all the numbers of its 'fc.bias'",
        ),
        ({"weights": {"more": torch.zeros(4)}}, "which has no more."),
    ],
)
def test_checkpoints_that_cannot_be_used(path: Path, changes: dict[str, Any], sentence: str) -> None:
    change(path, **changes)
    refuse(path, sentence)


@pytest.fixture
def old(path: Path) -> Path:
    """The same in version 1 of the format."""
    sizes = {"num_classes": 4, "in_channels": 1, "input_shape": [1, 32, 32]}
    change(path, version=1, sizes=None, hyperparameters=None, **sizes)
    return path


def test_version_1(old: Path) -> None:
    loaded, metadata = trainers.load_checkpoint(old)
    new = {**WHAT, "hyperparameters": {}, "keep": ["conv1", "fc"], "extra": {"test_accuracy": 0.5}}
    assert metadata == new
    x = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(x), build()(x))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_classes": "4"}, "its 'num_classes' is a str"),
        ({"num_classes": None}, "its 'num_classes' is missing"),
        ({"num_classes": 10**30}, "cannot be built"),
        ({"num_classes": 10**9}, "should have (1000000000, 64)"),
        ({"input_shape": [1, 8, 8]}, "has the input shape [1, 8, 8], but a 'resnet20' has [1, 32, 32]"),
        ({"input_shape": ["1"]}, "has an 'input_shape' that is not a list of sizes"),
    ],
)
def test_version_1_that_cannot_be_used(old: Path, changes: dict[str, Any], sentence: str) -> None:
    change(old, **changes)
    refuse(old, sentence)


def test_hyperparameters_come_back(tmp_path: Path) -> None:
    model = trainers.binarize(trainers.create_model("resnet20"), "recu", hyperparameters={"tau_end": 0.9})
    what = {"arch": "resnet20", "sizes": {}, "algorithm": "recu", "hyperparameters": {"tau_end": 0.9}}
    trainers.save_checkpoint(tmp_path / "m.pt", model, **what)
    loaded: Any = trainers.load_checkpoint(tmp_path / "m.pt")[0]
    assert loaded.layer1[0].conv1.hyperparameters == model.layer1[0].conv1.hyperparameters  # type: ignore[index, union-attr]
    assert loaded.layer1[0].conv1.hyperparameters.tau_end == 0.9


def test_a_file_cannot_ask_for_endless_layers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(layers: int = 1) -> torch.nn.Module:
        return torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(layers)))

    monkeypatch.setitem(models._entries, "deep", deep)
    change(path, arch="deep", sizes={"layers": 10**12})
    refuse(path, "cannot be built. It would have many times more parameters than there are weights.")


def test_a_file_cannot_ask_for_endless_inputs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(torch.nn.Linear):
        def __init__(self, length: int) -> None:
            super().__init__(1, 1)
            self.length = length

        @property
        def example_inputs(self) -> torch.Tensor:
            return torch.ones(1, self.length, 1)

    monkeypatch.setitem(models._entries, "long", lambda length=9: Long(length))
    state = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    for length, sentence in ((10**12, "Its inputs would be larger than any"), (10, "")):
        change(path, arch="long", sizes={"length": length}, algorithm="fp32", state_dict=state)
        change(path, hyperparameters={}, keep=[])
        if sentence:
            refuse(path, sentence)
        else:
            assert trainers.load_checkpoint(path)[1]["sizes"] == {"length": 10}


def test_arguments_that_contradict_the_checkpoint(path: Path) -> None:
    refuse(path, "holds a network with algorithm 'recu', not 'bnn'", algorithm="bnn")
    trainers.load_checkpoint(path, arch="resnet20", algorithm="recu", variant="paper")
