"""The memory of the sequential networks: what it sees, and what Deep-FSMN hands on."""

import pytest
import torch

import trainers
from trainers.models.fsmn import MemoryLayer


@pytest.mark.parametrize("deep", [False, True])
def test_a_memory_sees_two_frames_back_and_two_ahead(deep: bool) -> None:
    torch.manual_seed(0)
    layer = MemoryLayer(8, 4, deep).eval()
    assert layer.memory[0].groups == 4 and layer.memory[0].weight.shape == (4, 1, 5)
    x = torch.randn(1, 4, 20)
    changed = x.clone()
    changed[:, :, 9] += 1
    differs = (layer(changed) - layer(x)).abs().amax((0, 1)) > 1e-6
    assert differs.nonzero().flatten().tolist() == [7, 8, 9, 10, 11]


def test_deep_fsmn_hands_the_memory_on() -> None:
    x = torch.randn(1, 4, 20)
    for deep in (False, True):
        layer = MemoryLayer(8, 4, deep).eval()
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(layer(x), x if deep else torch.zeros_like(x))


def test_depth_and_widths() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(p.shape) for key, p in trainers.create_model("dfsmn").named_parameters()}
        other = {key: tuple(p.shape) for key, p in trainers.create_model("fsmn").named_parameters()}
    assert shapes == other
    assert shapes["front.0.weight"] == (16, 1, 5, 5) and shapes["front.3.weight"] == (32, 16, 5, 5)
    assert shapes["narrow.0.weight"] == (128, 256, 1)
    assert sum(key.endswith("hidden.0.weight") for key in shapes) == 8
    assert shapes["layers.7.hidden.0.weight"] == (256, 128, 1)
    assert shapes["classifier.2.weight"] == (12, 1024)
