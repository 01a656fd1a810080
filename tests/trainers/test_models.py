"""Every registered network, and what a family of other networks may be."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import trainers
from tests.trainers.toy_text import HasMark, toy_text
from trainers.inputs import call, describe
from trainers.models import models, sizes_by_shapes, sizes_by_weights
from trainers.models.mobilenet import InvertedResidual
from trainers.models.reactnet_a import Block as ReActBlock
from trainers.models.reactnet_a import RPReLU
from trainers.models.resnet import BasicBlock
from trainers.operator import BinaryLayer

FLOAT = (nn.Conv1d, nn.Conv2d, nn.Linear)
NAMES = [
    "bert_base",
    "bert_tiny4",
    "bert_tiny6",
    "dfsmn",
    "faster_rcnn",
    "fsmn",
    "mobilenet_v2",
    "pointnet",
    "pointnet_vanilla",
    "reactnet_a",
    "resnet18",
    "resnet20",
    "resnet34",
    "ssd300",
    "vgg_small",
]
SMALL = [f"{name}@small" for name in NAMES]
# Parameters as torchvision counts them, or as the layers of the paper's figure or table add up, and what is
# published, in millions. TinyBERT's 14.5 are 14.35 without the heads of its pre-training, as everywhere.
PARAMETERS = {
    "resnet18": (11_689_512, 11.69),
    "resnet34": (21_797_672, 21.8),
    "mobilenet_v2": (3_504_872, 3.50),
    "bert_tiny4": (14_350_248 + 2 * 313, 14.35),
    "bert_tiny6": (66_955_008 + 2 * 769, 67.0),
    "bert_base": (109_482_240 + 2 * 769, 109.5),
    "pointnet": (819_624 + 803_081 + 1_857_344, 3.5),
    "pointnet_vanilla": (819_624, 0.8),
    "reactnet_a": (29_333_672, 29.3),
    # 0.04 % more than Liu et al. have: batch norms for biases, and one after a maximum.
    "ssd300": (26_285_486 + 8_192 + 1_024, 26.3),
    # ResNet-18 without its classifier, the convolution before the anchors, and the four heads.
    "faster_rcnn": (11_176_512 + 590_336 + 45 * 257 + 25 * 513, 11.8),
}
# What stays float: the first convolution, what takes coordinates, and the head.
FLOATS = {
    "bert_base": ["classifier"],
    "bert_tiny4": ["classifier"],
    "bert_tiny6": ["classifier"],
    "dfsmn": ["front.0", "classifier.2"],
    "faster_rcnn": ["first.conv1", "first.objectness", "first.deltas", "second.logits", "second.deltas"],
    "fsmn": ["front.0", "classifier.2"],
    "mobilenet_v2": ["features.0.0", "classifier.1"],
    "pointnet": ["input_transform.points.0.0", "early.0.0", "head"],
    "pointnet_vanilla": ["early.0.0", "head"],
    "reactnet_a": ["stem.0", "fc"],
    "resnet18": ["conv1", "fc"],
    "resnet20": ["conv1", "fc"],
    "resnet34": ["conv1", "fc"],
    "ssd300": ["early.0.0", *(f"{head}.{n}" for head in ("deltas", "logits") for n in range(6))],
    "vgg_small": ["features.0", "classifier"],
}
BINARY = {
    "bert_base": 73,
    "bert_tiny4": 25,
    "bert_tiny6": 37,
    "dfsmn": 26,
    "faster_rcnn": 20,
    "fsmn": 26,
    "mobilenet_v2": 51,
    "pointnet": 17,
    "pointnet_vanilla": 6,
    "reactnet_a": 31,
    "resnet18": 19,
    "resnet20": 20,
    "resnet34": 35,
    "ssd300": 22,
    "vgg_small": 5,
}
ALGORITHMS = [name for name in trainers.list_algorithms() if name != "fp32"]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models._entries, "toy_text", toy_text)
    monkeypatch.setitem(models._entries, "toy_text@small", lambda width=4: toy_text(width=width))


def test_names() -> None:
    assert {*NAMES, *SMALL} <= set(trainers.list_models())
    assert trainers.list_models("resnet1*") == ["resnet18", "resnet18@small"]
    assert trainers.list_models("nothing*") == []
    with pytest.raises(ValueError, match="no model 'resnet19'; did you mean 'resnet1"):
        trainers.create_model("resnet19")
    for wrong in (0, -1, True, 2.0, "3", -(10**9000)):
        with pytest.raises(ValueError, match="num_classes has to be a whole number from 1 on, but is"):
            trainers.create_model("resnet20", num_classes=wrong)
    with pytest.raises(ValueError, match="resnet20 has no size 'words'; it takes num_classes, in_channels"):
        trainers.create_model("resnet20", words=3)


@pytest.mark.parametrize("name", [*SMALL, "resnet18", "toy_text", "toy_text@small"])
def test_every_network_takes_its_example_and_has_the_sizes_that_its_weights_show(name: str) -> None:
    defaults = trainers.default_sizes(name)
    sizes = {size: value + 4 for size, value in defaults.items() if type(value) is int and value}
    with torch.device("meta"):
        model = trainers.binarize(trainers.create_model(name, **sizes), "bnn")
        example = trainers.example_inputs_of(model)
        outputs = call(model.eval(), example)
    inputs = [x.shape for x in pytree.tree_leaves(example)]
    assert all(shape[0] == 1 for shape in inputs)
    assert any(layer.binary for layer in trainers.binarization_report(model))
    no_weights = {"points", "image_size"}
    seen = defaults | {size: value for size, value in sizes.items() if size not in no_weights}
    assert sizes_by_weights(name, model.state_dict()) == seen
    shown = sizes_by_shapes(name, inputs, [x.shape for x in pytree.tree_leaves(outputs)])
    outside = {"num_classes", "in_channels", "image_size", "length", "points", "features", "frames"}
    outside &= sizes.keys()
    assert {size: shown[size] for size in outside} == {size: sizes[size] for size in outside}


def test_an_example_is_where_the_parameters_are_and_in_their_type() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.example_inputs = (torch.zeros(1, 2), torch.zeros(1, 2).long())

    for dtype in (torch.float16, torch.float64):
        example = trainers.example_inputs_of(Net().to(dtype))
        assert [x.dtype for x in example] == [dtype, torch.int64]
    with torch.device("meta"):
        built = Net()
    assert all(x.is_meta for x in trainers.example_inputs_of(built))
    example = trainers.example_inputs_of(built.to_empty(device="cpu"))
    assert [tuple(x.shape) for x in example if not x.is_meta] == [(1, 2), (1, 2)]
    assert trainers.example_inputs_of(nn.Linear(2, 2)) is None


def test_inputs_are_described_without_their_batch() -> None:
    assert describe(torch.zeros(2, 3)) == describe((torch.zeros(1, 3),)) == "(3,)"
    assert describe(HasMark.example_inputs) == "input_ids (8,) int64, attention_mask (8,) int64"


def test_what_is_called() -> None:
    def give(x: Any, y: Any = None) -> Any:
        return x, y

    one, two = torch.ones(1), torch.zeros(1)
    model: Any = give
    assert call(model, one) == (one, None)
    assert call(model, (one, two)) == call(model, {"y": two, "x": one}) == (one, two)
    boxes = [one, two]
    assert call(model, boxes) == (boxes, None)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_binary_layers(name: str) -> None:
    with torch.device("meta"):
        model = trainers.create_model(name)
        count = sum(p.numel() for p in model.parameters())
        layers = [key for key, module in model.named_modules() if isinstance(module, FLOAT)]
        trainers.binarize(model, "bnn")
    if name in PARAMETERS:
        exact, millions = PARAMETERS[name]
        digits = len(str(millions).partition(".")[2])
        assert (count, round(count / 1e6, digits)) == (exact, millions)
    binary = [key for key, module in model.named_modules() if isinstance(module, BinaryLayer)]
    assert binary == [key for key in layers if key not in FLOATS[name]]
    assert len(binary) == BINARY[name]
    assert not any(isinstance(module, (nn.ReLU, nn.ReLU6, nn.GELU)) for module in model.modules())


BOXES = {"ssd300@small": 1488, "faster_rcnn@small": 32}  # of an image
PARTS = [("pointnet@small", 5), ("pointnet_vanilla@small", 5)]


@pytest.mark.filterwarnings("ignore:The binary layer")  # the statistics are those of no data
@pytest.mark.parametrize(("name", "parts"), [*((name, 0) for name in SMALL), *PARTS])
def test_small_networks_with_every_algorithm(name: str, parts: int) -> None:
    torch.manual_seed(0)
    sizes = {"parts": parts} if parts else {"num_classes": 7}
    network = trainers.create_model(name, **sizes).eval()
    weights, names = network.state_dict(), dict(network.named_modules())
    example = trainers.example_inputs_of(network)
    noise = pytree.tree_map(lambda x: torch.randn_like(x) if x.is_floating_point() else x, example)
    shape = (1, parts, 128) if parts else (1, BOXES[name], 8) if name in BOXES else (1, 7)
    with torch.inference_mode():
        outputs = pytree.tree_leaves(call(network, noise))[-1:]  # of a detector's the scores
    for algorithm in ALGORITHMS:
        binary = trainers.binarize(trainers.create_model(name, **sizes), algorithm).eval()
        floats = [layer.name for layer in trainers.binarization_report(binary) if not layer.binary]
        assert floats == [key for key in FLOATS[name.removesuffix("@small")] if key in names]
        trainers.initialise(binary, network)
        state = binary.state_dict()
        assert all(torch.equal(state[key], value) for key, value in weights.items())
        with torch.inference_mode():
            outputs += pytree.tree_leaves(call(binary, noise))[-1:]
    assert all(y.shape == shape and torch.isfinite(y).all() for y in outputs)
    assert not any(torch.allclose(y, outputs[0]) for y in outputs[1:])


def test_weights_of_another_network() -> None:
    model = trainers.binarize(trainers.create_model("resnet20@small"), "recu")
    other = trainers.create_model("resnet20@small", num_classes=3)
    with pytest.raises(ValueError, match=r"their fc.weight has the shape \(3, 32\), but should have \(10"):
        trainers.initialise(model, other)
    with pytest.raises(ValueError, match="this one has no features.0.weight"):
        trainers.initialise(model, trainers.create_model("vgg_small@small"))
    state = trainers.create_model("resnet20@small").state_dict()
    del state["bn1.bias"]
    with pytest.raises(ValueError, match="they have no bn1.bias"):
        trainers.initialise(model, state)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "mobilenet_v2", "reactnet_a"])
def test_stems(name: str) -> None:
    with torch.device("meta"):
        large: Any = trainers.create_model(name)
        tiny: Any = trainers.create_model(name, stem="cifar", num_classes=10)
    assert (large.input_shape, tiny.input_shape) == ((3, 224, 224), (3, 32, 32))
    shapes = []
    for model in (large, tiny):
        pooled = model.avgpool.register_forward_pre_hook(lambda _, x: shapes.append(x[0].shape[2:]))
        call(model.eval(), torch.zeros(1, *model.input_shape, device="meta"))
        pooled.remove()
    assert shapes == [(7, 7), (4, 4)]
    with pytest.raises(ValueError, match="no stem 'image'; did you mean 'imagenet'"):
        trainers.create_model(name, stem="image")


def test_shortcuts() -> None:
    x = torch.randn(2, 4, 8, 8).clamp(-1, 1)
    for block, expected in (
        (InvertedResidual(4, 4, 1, 6), x),
        (InvertedResidual(4, 4, 2, 6), torch.zeros(2, 4, 4, 4)),
        (InvertedResidual(4, 8, 1, 1), torch.zeros(2, 8, 8, 8)),
        (BasicBlock(4, 4, 1), x),
        (ReActBlock(4, 4, 1), prelu(prelu(x))),
        (ReActBlock(4, 8, 1), prelu(prelu(x)).repeat(1, 2, 1, 1)),
        (ReActBlock(4, 4, 2), prelu(prelu(nn.functional.avg_pool2d(x, 2)))),
    ):
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.weight)
        torch.testing.assert_close(block(x), expected)


def prelu(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, x / 4)


def test_rprelu_shifts_before_and_after() -> None:
    layer = RPReLU(1)
    nn.init.constant_(layer.gamma, 2)
    nn.init.constant_(layer.zeta, 3)
    found = layer(torch.tensor([0.0, 2.0, 4.0]).reshape(1, 1, 1, 3)).flatten()
    assert found.tolist() == [-2 / 4 + 3, 3, 5]


def test_mobilenet_has_the_names_of_torchvision() -> None:
    with torch.device("meta"):
        state = trainers.create_model("mobilenet_v2").state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert len(shapes) == 314
    assert shapes["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert shapes["features.17.conv.1.0.weight"] == (960, 1, 3, 3)
    assert shapes["features.17.conv.3.running_var"] == (320,)
    assert shapes["features.18.0.weight"] == (1280, 320, 1, 1)
    assert shapes["classifier.1.bias"] == (1000,)
