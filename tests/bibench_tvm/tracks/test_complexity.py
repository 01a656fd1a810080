"""Counts of parameters, bits and operations, against formulas of their own and against the paper."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainers
from bibench_tvm.importer.source import Network
from bibench_tvm.tracks import paper
from bibench_tvm.tracks.complexity import complexity_of, complexity_of_name, summarize
from bibench_tvm.tracks.recompute import NAMES
from trainers.operator import BinaryLayer

SMALL = trainers.list_models("*@small")
ALGORITHMS = trainers.list_algorithms()
# ResNet-18 at 224, the binary convolutions: inputs, outputs, kernel, extent of the output, how many.
BINARY = [(64, 64, 3, 56, 4)]
for width, extent in ((128, 28), (256, 14), (512, 7)):
    half = width // 2
    BINARY += [(half, width, 3, extent, 1), (width, width, 3, extent, 3), (half, width, 1, extent, 1)]


def test_resnet18_by_a_formula() -> None:
    weights = sum(n * i * o * k * k for i, o, k, _, n in BINARY)
    scales = sum(n * o for _, o, _, _, n in BINARY)
    thresholds = sum(n * i for i, _, _, _, n in BINARY)
    outputs = sum(n * o * e * e for _, o, _, e, n in BINARY)
    products = sum(n * i * o * k * k * e * e for i, o, k, e, n in BINARY)
    floats = 64 * 3 * 49 + 512 * 1000 + 1000 + 2 * (64 + scales)  # the ends, and batch norms
    whole = 64 * 3 * 49 * 112 * 112 + 512 * 1000
    for algorithm, extra, times in (
        ("bnn", 0, 0),
        ("bireal", scales, 1),
        ("reactnet", scales + thresholds, 1),
    ):
        found = complexity_of_name("resnet18", algorithm)
        assert found.parameters == weights + floats == 11_689_512
        assert found.bits == weights + 32 * (floats + extra)
        assert found.binary_operations == products
        assert found.float_operations == whole + times * outputs
        assert found.compression == pytest.approx((weights + floats) / (weights / 32 + floats + extra))
        assert found.speedup == pytest.approx((products + whole) / (products / 64 + whole + times * outputs))


@pytest.mark.parametrize("name", paper.ALGORITHMS)
def test_resnet18_against_the_paper(name: str) -> None:
    printed = {
        (row.metric, row.algorithm): row.value
        for row in paper.read(paper.Summary)
        if row.track == "theoretical_complexity"
    }
    found = complexity_of_name("resnet18", NAMES[name])
    assert found.speedup == pytest.approx(printed["speedup", name], rel=0.01)
    assert found.compression == pytest.approx(printed["compression", name], rel=0.01)
    if name in ("BNN", "XNOR", "Bi-Real", "ReCU"):  # without a scale, and with one for each channel
        assert round(found.compression or 0, 2) == printed["compression", name]


@pytest.mark.parametrize("arch", SMALL)
def test_every_architecture(arch: str) -> None:
    """Each with another algorithm: all parameters are counted once, and no network gets worse."""
    algorithm = ALGORITHMS[1 + SMALL.index(arch) % 8]
    found = complexity_of_name(arch, algorithm)
    with torch.device("meta"):
        model = trainers.create_model(arch)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert 1 < found.compression < 32 and 1 < found.speedup < 64
    same = complexity_of(model, trainers.example_inputs_of(model))
    assert same.compression == same.speedup == 1 and not any(layer.binary for layer in same.layers)
    assert same.operations == found.binary_operations + sum(
        layer.operations or 0 for layer in found.layers if not layer.binary
    )
    assert {layer.name for layer in found.layers} == {layer.name for layer in same.layers}
    assert all(layer.binary != bool(layer.reason) for layer in found.layers)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_every_algorithm(algorithm: str, variant: str) -> None:
    """A convolution from 6 to 8 channels with 10 x 12 outputs: 432 weights, and its bias."""
    layer = trainers.binarize(nn.Conv2d(6, 8, 3), algorithm, variant)
    found = complexity_of(layer, torch.zeros(1, 6, 12, 14)).layers[0]
    floats = {"bnn": 0, "dorefa": 1 if variant == "paper" else 8, "xnorpp": 8 + 10 + 12, "reactnet": 8 + 6}
    floats["fda"] = 8 + 6 if variant == "paper" else 8
    floats |= {"adabin": 8 + 8, "bit": 1}
    scales = {"bnn": 0, "xnor": 2, "xnorpp": 2, "adabin": 2}.get(algorithm, 1)
    assert found.binary and found.op == "conv2d"
    assert found.parameters == 432 + 8
    assert found.bits == 432 + 32 * (8 + floats.get(algorithm, 8))
    assert found.operations == 432 * 120 and found.scale_operations == scales * 8 * 120


def test_products_of_an_attention() -> None:
    """Of bits where both operands come from a comparison."""
    for algorithm, binary in (("bnn", True), ("fp32", False)):
        products = [x for x in complexity_of_name("bert_tiny4@small", algorithm).layers if x.op == "product"]
        assert len(products) == 2 and all(product.binary is binary for product in products)
        assert all(product.operations == 32 * 32 * 64 for product in products)


@pytest.mark.parametrize(
    ("product", "binary"),
    [
        (lambda x, w: x @ w, True),
        (lambda x, w: torch.addmm(torch.zeros(6), x, w), True),
        (lambda x, w: x[:, 2:] @ w[2:], True),
        (lambda x, w: x.view(2, 2, 8)[:, 0] @ (1 - 2 * w) / 3, True),
        (lambda x, w: torch.cat([x, -x]) @ w.clone(), True),
        (lambda x, w: F.pad(x, (1, 1)) @ F.pad(w, (0, 0, 1, 1)), True),
        (lambda x, w: (x * torch.ones(1) + torch.ones(4, 1)) @ (w.t() * torch.ones(6, 1)).t(), True),
        (lambda x, w: (x + x.flip(0)) @ w, False),
        (lambda x, w: (x * torch.ones(8)) @ w, False),
        (lambda x, w: (x * torch.ones(1, 8)) @ w, False),
        (lambda x, w: torch.where(x > 0, torch.ones(4, 8), 0.0) @ w, False),
        (lambda x, w: x @ torch.ones(8, 6), False),
        (lambda x, w: x.cumsum(1) @ w, False),
    ],
)
def test_products_of_bits(product: Any, binary: bool) -> None:
    """Both operands come from a comparison, by moves and by arithmetic with one number, or one a row."""

    class Product(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            with torch.device("meta"):
                return product(torch.where(x >= 0, 1.0, -1.0), torch.where(w >= 0, 1.0, -1.0))

    [found] = complexity_of(Product(), (torch.zeros(4, 8), torch.zeros(8, 6))).layers
    assert found.binary is binary and found.name == "product 1"


def test_what_is_not_known() -> None:
    class Ninth(BinaryLayer):
        def scale(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return 3 * y

    layer = Ninth(nn.Conv2d(6, 8, 3))
    found = complexity_of(nn.Sequential(layer), torch.zeros(1, 6, 9, 9))
    assert found.bits is None and found.compression is None and found.speedup is None
    assert found.parameters == 440 and found.binary_operations == 432 * 49
    bilinear = complexity_of(nn.Bilinear(3, 4, 5), (torch.zeros(1, 3), torch.zeros(1, 4)))
    assert bilinear.layers[0].operations is None and bilinear.speedup is None
    assert bilinear.parameters == 65 and bilinear.compression == 1


def test_a_layer_that_is_used_twice_or_never() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.idle = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
            self.other = nn.Linear(4, 4, bias=False)
            self.other.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(self.one(self.one(x)))

    found = complexity_of(Twice(), torch.zeros(1, 4))
    assert [layer.parameters for layer in found.layers] == [16, 20, 0] and found.parameters == 36
    assert [layer.operations for layer in found.layers] == [32, 0, 16]


def test_the_network_stays_as_it_is() -> None:
    model = trainers.binarize(trainers.create_model("resnet20@small"), "reactnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    complexity_of(model, trainers.example_inputs_of(model))
    assert model.training and all(p.device.type == "cpu" for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer.looked_at_input for layer in model.modules() if isinstance(layer, BinaryLayer))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_file_says_the_same_of_its_layers(small_file: Path, small: Any) -> None:
    """The compiler counts the products of an ONNX file in its own way."""
    by_file = summarize(Network(model=small_file)).complexity
    by_module = complexity_of(small, torch.zeros(1, 4, 8, 8))
    assert [layer.operations for layer in by_file.layers] == [4 * 16 * 9 * 64, 16 * 24 * 9 * 64, 1536 * 5]
    assert [(x.binary, x.operations) for x in by_file.layers] == [
        (x.binary, x.operations) for x in by_module.layers
    ]
    assert [layer.bits for layer in by_file.layers] == [32 * 576, 3456, 32 * 7680]
    assert by_file.compression is None and by_file.speedup is None and by_file.parameters is None
