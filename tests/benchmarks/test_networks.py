"""The networks in which more than convolutions takes time."""

import torch

import trainers
from benchmarks import goals, networks


def test_each_has_a_goal() -> None:
    assert list(networks.CASES) == list(goals.MIXED)
    assert all(goals.RATIOS[name][goals.FLOAT] is goal for name, goal in goals.MIXED.items())


def test_a_network_is_the_same_each_time_and_keeps_its_gates_in_float() -> None:
    with torch.inference_mode():
        (binary, x), (again, _) = (networks.network("bnext", binary=True) for _ in range(2))
        torch.testing.assert_close(binary(x), again(x), rtol=0, atol=0)
        floats, _ = networks.network("bnext", binary=False)
        assert floats(x).shape == binary(x).shape == (1, 1000)
    layers = {layer.name: layer.binary for layer in trainers.binarization_report(binary)}
    assert not any(layers[name] for name in layers if "gate" in name)
    assert not layers["0.0"] and not layers["11"]
    assert sum(layers.values()) == 19
