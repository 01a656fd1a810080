"""Which layers stay float by default, and what is said of a network as `binarize` sees it."""

import logging
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trainers
from trainers.operator import BinaryLayer

Outputs = namedtuple("Outputs", "logits aux")


@dataclass
class Detections:
    """What no library knows how to take apart."""

    boxes: Tensor
    scores: Tensor


class Net(nn.Module):
    """A stem, two layers, and heads of both kinds; `end` makes the outputs of it all."""

    def __init__(self, end: Callable[[Any, Tensor], Any], branches: bool = False) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.map, self.scores, self.boxes = nn.Conv2d(8, 4, 1), nn.Linear(8, 5), nn.Linear(8, 4)
        self.end, self.branches = end, branches

    def forward(self, x: Tensor) -> Any:
        x = torch.tanh(self.stem(x))
        x = self.body(x.neg() if self.branches and x.sum() > 1e9 else x)
        return self.end(self, x)


def _float(model: nn.Module) -> set[str]:
    return {layer.name for layer in trainers.binarization_report(model) if not layer.binary}


ENDS: dict[str, tuple[Callable[[Any, Tensor], Any], set[str]]] = {
    "one": (lambda n, x: n.scores(x.mean((2, 3))), {"scores"}),
    "two in a dictionary": (
        lambda n, x: {"scores": n.scores(x.mean((2, 3))).softmax(-1), "boxes": [n.boxes(x.mean((2, 3)))]},
        {"scores", "boxes"},
    ),
    "named": (lambda n, x: Outputs(n.scores(x.mean((2, 3))), aux=n.map(x)), {"scores", "map"}),
    "an object": (lambda n, x: Detections(n.map(x).flatten(1), n.scores(x.mean((2, 3)))), {"scores", "map"}),
    "convolution, then pooling": (lambda n, x: F.adaptive_avg_pool2d(n.map(x), 1).flatten(1), {"map"}),
    "parts put together": (
        lambda n, x: torch.cat([n.scores(x.mean((2, 3))), n.boxes(x.mean((2, 3)))], 1),
        {"scores", "boxes"},
    ),
    "shortcut": (lambda n, x: x[:, :4] + n.map(torch.tanh(x)), {"map"}),
    "a head that feeds another": (
        lambda n, x: (n.scores(x.mean((2, 3))), n.map(x * n.boxes(x.mean((2, 3))).mean())),
        {"scores", "map"},
    ),
    "sizes are no data": (lambda n, x: n.scores(x.mean((2, 3))).view(x.size(0), -1), {"scores"}),
    "decided": (lambda n, x: n.scores(x.mean((2, 3))).argmax(-1), {"scores"}),
    "by function": (lambda n, x: F.linear(x.mean((2, 3)), n.scores.weight), {"scores"}),
    "in training": (
        lambda n, x: (n.scores(x.mean((2, 3))), n.map(x) if n.training else None),
        {"scores", "map"},
    ),
}


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_heads_are_what_reaches_an_output(name: str, inputs: bool) -> None:
    end, heads = ENDS[name]
    x = torch.randn(2, 3, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this network has heads that it does not use
        if inputs:  # a network that branches on values cannot be traced without
            model = trainers.binarize(Net(end, branches=True), "bnn", example_inputs=x)
        else:
            model = trainers.binarize(Net(end), "bnn")
    assert _float(model) == {"stem", *heads}
    assert model.training
    model(x)


@pytest.mark.filterwarnings("ignore:The forward was not seen")
def test_wrapped_networks() -> None:
    end = ENDS["named"][0]
    assert _float(trainers.binarize(nn.DataParallel(Net(end)), "bnn")) == {
        f"module.{n}" for n in ("stem", "scores", "map")
    }
    compiled: Any = torch.compile(Net(end), backend="eager")
    assert _float(trainers.binarize(compiled, "bnn")) == {f"_orig_mod.{n}" for n in ("stem", "scores", "map")}


def test_tracing_leaves_the_network_and_the_generator_alone() -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a, self.b, self.calls = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2), 0
            self.last: Any = None

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = x = self.a(self.norm(x) + torch.randn(4))
            return self.b(x)

    for arguments in ({}, {"example_inputs": torch.randn(3, 4)}):
        torch.manual_seed(0)
        model: Any = Seen()
        random, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
        trainers.binarize(model, "bnn", **arguments)
        assert torch.equal(torch.get_rng_state(), random)
        assert (model.calls, model.last) == (0, None)
        assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
        assert all(p.requires_grad for p in model.parameters())


def test_without_a_forward_to_trace_the_sizes_decide() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardtanh(), nn.Conv2d(8, 8, 3))
            self.score, self.box = nn.Linear(8 * 4, 5), nn.Linear(8 * 4, 4)

    model = trainers.binarize(Two(), "bnn")
    assert _float(model) == {"body.0", "score", "box"}
    assert "by their sizes" in trainers.binarization_report(model)[-1].reason


def test_the_report(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, 3),
        nn.Unflatten(1, (2, 2)),
        nn.ConvTranspose3d(2, 2, 3),
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    model(torch.zeros(1, 3, 8, 8))
    with (
        caplog.at_level(logging.INFO, "trainers"),
        pytest.warns(UserWarning, match="3: there is no binary Conv"),
    ):
        trainers.binarize(model, "bnn")
    report = trainers.binarization_report(model)
    assert [(layer.name, layer.binary) for layer in report] == [
        ("0", False),
        ("1", True),
        ("3", False),
        ("5", False),
    ]
    assert [layer.reason for layer in report] == [
        "it is the first convolution",
        "",
        "there is no binary ConvTranspose3d",
        "it is a head: its result reaches an output with no other layer after it",
    ]
    assert [record.getMessage() for record in caplog.records][:2] == [
        "0: float, as it is the first convolution",
        "1: binary",
    ]
    with pytest.raises(ValueError, match="is not what binarize returned"):
        trainers.binarization_report(nn.Linear(2, 2))


class Scaled(nn.Linear):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("model", "keep", "sentence"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)),
            None,
            "0 stays float, as it is the first conv.*; 1 ",
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
            ["0", "1"],
            "1 stays float, as it is named in keep",
        ),
        (
            lambda: nn.Sequential(Scaled(3, 4), nn.LSTM(4, 4)),
            [],
            "a Scaled, a subclass of Linear .* no binary LSTM",
        ),
        (lambda: nn.MultiheadAttention(4, 2), [], "the model stays float, as its projections are parameters"),
        (lambda: nn.ReLU(), None, "ReLU has no Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d or Linear"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)),
            None,
            "1 is a LazyLinear, which has no sizes before",
        ),
    ],
)
def test_what_cannot_be_binarized_is_refused_and_left_as_it_was(model: Any, keep: Any, sentence: str) -> None:
    network = model()
    with pytest.raises(ValueError, match=sentence):
        trainers.binarize(network, "bnn", keep=keep)
    assert not any(isinstance(module, BinaryLayer) for module in network.modules())


def _net(activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        activation,
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        activation,
        nn.Flatten(),
        nn.Linear(8, 2),
    )


@pytest.mark.parametrize("algorithm", [name for name in trainers.list_algorithms() if name != "fp32"])
def test_a_relu_before_a_sign_does_not_stay(algorithm: str) -> None:
    x = torch.randn(16, 3, 8, 8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model: Any = trainers.binarize(_net(nn.ReLU()), algorithm)
        y = model.eval()(x)
    learned = algorithm in ("reactnet", "fda", "bit")  # their thresholds tell 0 from what is above it
    assert isinstance(model[1], nn.ReLU if learned else nn.Hardtanh)
    assert model[1] is model[4]
    assert [str(w.message).endswith("Replaced by Hardtanh: 1; 4.") for w in said] == [] if learned else [True]
    assert y.std(0).min() > 0


class Functional(nn.Module):
    """A network with a function in front of its one binary layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.function = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(self.function(self.a(x)))))


@pytest.mark.parametrize(
    ("function", "constant"),
    [
        (F.relu, True),
        (lambda x: x.relu().flatten(1), True),
        (lambda x: F.dropout(torch.sigmoid(x), 0.1), True),
        (lambda x: F.relu(x) + F.relu6(x), True),
        (lambda x: F.relu(x) - 1, False),
        (torch.tanh, False),
        (F.gelu, False),
    ],
)
def test_inputs_that_are_never_negative_are_said(
    function: Callable[[Tensor], Tensor], constant: bool
) -> None:
    x = torch.randn(16, 8)
    for arguments in ({}, {"example_inputs": x}):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model: Any = trainers.binarize(Functional(function), "bnn", keep=["a", "c"], **arguments)
            assert [("never negative" in str(w.message), "b (after" in str(w.message)) for w in said] == [
                (True, True)
            ] * constant
            model(x), model(x)
        assert [
            str(w.message)
            for w in said[constant:]
            if "layer b gets an input whose signs are all +1" not in str(w.message)
        ] == []
        assert len(said) == 2 * constant  # at its first batch and not again
