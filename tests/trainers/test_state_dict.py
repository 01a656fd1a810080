"""Plain state dicts, as other programs save them."""

from pathlib import Path
from typing import Any

import pytest
import torch

import trainers
from tests.trainers.test_checkpoint import build, refuse


def test_a_state_dict_alone(tmp_path: Path) -> None:
    model = build("bireal")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    loaded, metadata = trainers.load_checkpoint(tmp_path / "state.pt", arch="resnet20", algorithm="bireal")
    assert metadata["sizes"] == {"num_classes": 4, "in_channels": 1}
    x = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(x), model(x))
    refuse(tmp_path / "state.pt", "a plain state dict, which does not say what network it is")
    refuse(tmp_path / "state.pt", "has no layer1.0.conv1.threshold", arch="resnet20", algorithm="reactnet")
    torch.save({}, tmp_path / "state.pt")
    refuse(tmp_path / "state.pt", "holds no weights", arch="resnet20")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "global_step": 7},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"model": s, "model_ema": {k: v * 0 for k, v in s.items()}},
        lambda s: {"model_ema": {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in s.items()}}},
        lambda s: {f"module.model.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {k.replace("layer1.0.", "layer1.0._orig_mod."): v for k, v in s.items()},
        lambda s: {f"net.backbone.{k}": v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
)
def test_state_dicts_of_other_programs(tmp_path: Path, wrap: Any) -> None:
    model = build("reactnet")
    torch.save(wrap(model.state_dict()), tmp_path / "theirs.pt")
    loaded, metadata = trainers.load_checkpoint(tmp_path / "theirs.pt", arch="resnet20", algorithm="reactnet")
    assert metadata["sizes"] == {"num_classes": 4, "in_channels": 1}
    x = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"model.fc.weight": torch.zeros(4, 63)},
            "its fc.weight has the shape (4, 63), but should have (4, 64)",
        ),
        ({"criterion.weight": torch.zeros(4)}, "under the prefix 'model.', and besides it criterion.weight"),
        ({"model.more": torch.zeros(4)}, "which has no more."),
        ({"model.conv1.weight": None}, "it has no conv1.weight"),
        ({"ema": "model."}, "holds several networks, under the prefixes 'ema.', 'model.'; save one alone"),
    ],
)
def test_state_dicts_of_other_programs_that_do_not_fit(tmp_path: Path, change: Any, sentence: str) -> None:
    state = {f"model.{key}": value for key, value in build("bnn").state_dict().items()}
    if "ema" in change:
        change = {key.replace("model.", "ema.", 1): value for key, value in state.items()}
    state = {key: value for key, value in (state | change).items() if value is not None}
    torch.save({"state_dict": state}, tmp_path / "theirs.pt")
    refuse(tmp_path / "theirs.pt", sentence, arch="resnet20", algorithm="bnn")
