"""Signs as people spell them, and moves of signs, from PyTorch and from ONNX: in bits, and exact."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.bibench_tvm.verified import verified

SHAPE = (1, 8, 4, 4)
# torch.onnx has no way to write them, or writes an If or float64.
NOT_IN_ONNX = {
    "heaviside", "copysign", "signbit", "sgn", "trunc", "threshold", "bucketize", "an xor of truths",
    "equal to True", "nan_to_num", "floor_divide", "channel_shuffle", "rot90", "take_along_dim",
    "nearest-exact", "diagonal", "an xor with 1", "xor of integers", "times a power of two",
    "exp2",
}  # fmt: skip
DETOURS = {"straight through a clip", "straight through tanh", "h + (s - h)", "Bi-Real", "x + (s - x)"}
Function = Callable[[Tensor], Tensor]


def put(x: Tensor) -> Tensor:
    s = torch.sign(x).clone()
    s[s == 0] = 1.0
    return s


def put_twice(x: Tensor) -> Tensor:
    s = torch.zeros_like(x)
    s[x >= 0] = 1.0
    s[x < 0] = -1.0
    return s


def put_slice(x: Tensor) -> Tensor:
    s = bits(x).clone()
    s[:, 2:4] = 1.0
    return s


def put_all(x: Tensor) -> Tensor:
    s = torch.empty_like(x)
    s[:, 5:] = bits(x[:, :3])
    s[:, :5] = other(x)[:, 3:]
    return s


def threshold(x: Tensor) -> Tensor:
    return -F.threshold(-F.threshold(x, 0, -1.0), 0, -1.0)


def bi_real(x: Tensor) -> Tensor:
    """The published form: a piecewise polynomial that is taken away and added again."""
    left, middle, right = ((x < limit).float() for limit in (-1, 0, 1))
    inside = -left + (x * x + 2 * x) * (1 - left)
    soft = (inside * middle + (-x * x + 2 * x) * (1 - middle)) * right + (1 - right)
    return bits(x).detach() - soft.detach() + soft


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign().add(0.1).sign()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def nested(x: Tensor) -> Tensor:
    return torch.where(x > 1, 1.0, torch.where(x < -1, -1.0, torch.where(x >= 0, 1.0, -1.0)))


def through(soft: Function) -> Function:
    return lambda x: torch.where(x >= 0, 1.0, -1.0) - soft(x) + soft(x)


def bits(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def other(x: Tensor) -> Tensor:
    return bits(x.flip(1) - 0.3)


PER_CHANNEL = torch.linspace(-1, 1, 8).reshape(1, 8, 1, 1)
TABLE = torch.tensor([-1.0, 1.0])
SIGNS: dict[str, Function] = {
    "where": bits,
    "where of tensors": lambda x: torch.where(x < 0, -torch.ones_like(x), torch.ones_like(x)),
    "where of new ones": lambda x: torch.where(x > 0, x.new_ones(x.shape), torch.full_like(x, -1.0)),
    "2 b - 1": lambda x: (x >= 0).float() * 2 - 1,
    "1 - 2 b": lambda x: 1 - 2 * x.lt(0).to(x),
    "2 (b - 1 / 2)": lambda x: 2 * ((x >= 0).float() - 0.5),
    "in integers": lambda x: ((x >= 0) * 2 - 1).float(),
    "in bytes": lambda x: ((x >= 0).to(torch.int8) * 2 - 1).float(),
    "in halves": lambda x: ((x >= 0).half() * 2 - 1).float(),
    "in place": lambda x: torch.ge(x, 0).type_as(x).mul_(2).sub_(1),
    "s + (1 - |s|)": lambda x: torch.sign(x) + (1.0 - torch.sign(x).abs()),
    "s + (1 - s^2)": lambda x: x.sign() + (1 - x.sign() ** 2),
    "s + (1 - s s)": lambda x: x.sign() + (1 - x.sign() * x.sign()),
    "where s == 0": lambda x: torch.where(torch.sign(x) == 0, 1.0, torch.sign(x)),
    "where s == -1": lambda x: torch.where(x.sign() == -1, x.sign(), torch.ones_like(x)),
    "where |x| > 0": lambda x: torch.where(x.abs() > 0, x.sign(), torch.ones_like(x)),
    "s[s == 0] = 1": put,
    "put twice": put_twice,
    "filled where s == 0": lambda x: x.sign().masked_fill(x.sign().eq(0), 1),
    "sign(sign + 0.1)": lambda x: x.sign().add(0.1).sign(),
    "an autograd.Function": Straight.apply,
    "sign(2 s + 1)": lambda x: torch.sign(torch.sign(x) * 2 + 1),
    "clip(2 s + 1)": lambda x: torch.clamp(torch.sign(x) * 2 + 1, -1, 1),
    "sgn": lambda x: torch.sgn(x) + (x == 0).float(),
    "a difference of truths": lambda x: (x >= 0).float() - (x < 0).float(),
    "gt - le": lambda x: x.gt(0).float() - x.le(0).float(),
    "s + (x == 0)": lambda x: torch.sign(x) + (x == 0),
    "a maximum": lambda x: torch.maximum(torch.sign(x), (x == 0).float() * 2 - 1),
    "masked twice": lambda x: x.masked_fill(x >= 0, 1.0).masked_fill(x < 0, -1.0),
    "nested where": nested,
    "a power of -1": lambda x: torch.pow(-1.0, (x < 0).float()),
    "a power of tensors": lambda x: torch.pow(torch.full_like(x, -1.0), (x < 0).float()),
    "cos(pi b)": lambda x: torch.cos(math.pi * (x < 0).float()),
    "exp(-b)": lambda x: torch.exp(-(x >= 0).float()),
    "1 / sqrt(3 b + 1)": lambda x: torch.rsqrt((x >= 0).float() * 3 + 1),
    "log(b + 1)": lambda x: torch.log((x >= 0).float() + 1),
    "floor": lambda x: torch.floor(torch.clamp(x, -1, 1) / 2 + 0.5) * 2 - 1,
    "floor of a clip": lambda x: torch.floor(torch.clamp(x, -1, 0)) * 2 + 1,
    "clip of a floor": lambda x: torch.clamp(torch.floor(x), -1, 0) * 2 + 1,
    "ceil of a clip": lambda x: torch.ceil(torch.clamp(x, 0, 1)) * 2 - 1,
    "hardtanh of a floor": lambda x: F.hardtanh(torch.floor(x) * 2 + 1),
    "trunc": lambda x: torch.clamp(torch.trunc(x), 0, 1) * 2 - 1,
    "floor_divide": lambda x: torch.clamp(x // 1, -1, 0) * 2 + 1,
    "a remainder": lambda x: 1 - 2 * torch.remainder(torch.floor(torch.clamp(x, -1, 0)), 2),
    "integers of a floor": lambda x: torch.clamp(torch.floor(x).long(), -1, 0).float() * 2 + 1,
    "an integer >= 0": lambda x: (x.int() >= 0).float() * 2 - 1,
    "round": lambda x: 2 * torch.round(torch.clamp((x + 1) / 2, 0, 1)) - 1,
    "BinaryConnect": lambda x: torch.where(torch.round(torch.clamp((x + 1) / 2, 0, 1)) == 1, 0.7, -0.7),
    "DoReFa of one bit": lambda x: torch.round(torch.clamp(x, 0, 1)),
    "round of sigmoid": lambda x: torch.round(torch.sigmoid(x)) * 2 - 1,
    "round of hardsigmoid": lambda x: torch.round(F.hardsigmoid(x)) * 2 - 1,
    "tanh >= 0": lambda x: (torch.tanh(x) >= 0).float() * 2 - 1,
    "relu of a sign": lambda x: F.relu(torch.sign(x)) * 2 - 1,
    "sign of a relu": lambda x: torch.sign(F.relu(x)) * 2 - 1,
    "sign of a shifted sign": lambda x: torch.sign(torch.sign(x) - 0.5),
    "sign without 0": lambda x: torch.sign(x.masked_fill(x == 0, 1e-8)),
    "sign of x + (x == 0)": lambda x: torch.sign(x + (x == 0).float()),
    "a quotient": lambda x: torch.where(x == 0, 1.0, x / x.abs()),
    "x == |x|": lambda x: (x.abs() == x).float() * 2 - 1,
    "x == relu(x)": lambda x: (F.relu(x) == x).float() * 2 - 1,
    "x - |x| < 0": lambda x: torch.where(x - x.abs() < 0, -1.0, 1.0),
    "nan_to_num": lambda x: torch.nan_to_num(x / x.abs(), nan=1.0),
    "x != 0": lambda x: (x != 0).float(),
    "inside of an interval": lambda x: ((x >= -0.5) & (x < 1)).float() * 2 - 1,
    "outside of an interval": lambda x: ((x.abs() > 0.7).float() - 0.5) * 2,
    "a threshold per channel": lambda x: 1 - 2 * (x * PER_CHANNEL < PER_CHANNEL.abs() - 0.5).float(),
    "a bias per channel": lambda x: bits(x + PER_CHANNEL),
    "the greater of two": lambda x: torch.stack([x, -x]).argmax(0).float() * 2 - 1,
    "bytes that wrap": lambda x: ((x >= 0).byte() * 2 - 1).float(),  # 255 and 1
    "shifted": lambda x: (((x >= 0).int() << 1) - 1).float(),
    "an xor with 1": lambda x: ((x < 0).int() ^ 1).float() * 2 - 1,
    "times a power of two": lambda x: torch.ldexp(bits(x), torch.tensor(-2)),
    "exp2": lambda x: torch.exp2((x >= 0).float()),
    "any": lambda x: (x > 1).any(1, keepdim=True).expand(SHAPE).float() * 2 - 1,
    "truths in order": lambda x: ((x >= 0) >= (x.flip(1) < 0.5)).float() * 2 - 1,
    "not": lambda x: (~(x < 0)).float() * 2 - 1,
    "an xor of truths": lambda x: ((x < 0) ^ (x.flip(1) < 0.5)).float() * 2 - 1,
    "equal to True": lambda x: ((x >= 0) == True).float() * 2 - 1,  # noqa: E712
    "a table": lambda x: TABLE[(x >= 0).long()],
    "an embedding": lambda x: F.embedding((x >= 0).long(), TABLE[:, None]).squeeze(-1),
    "bucketize": lambda x: torch.bucketize(x, torch.zeros(1), right=True).float() * 2 - 1,
    "threshold": threshold,
    "lerp": lambda x: torch.lerp(-torch.ones_like(x), torch.ones_like(x), (x >= 0).float()),
    "Bi-Real": bi_real,
    "straight through a clip": through(lambda x: x.clamp(-1, 1)),
    "straight through tanh": through(lambda x: torch.tanh(3 * x)),
    "h + (s - h)": lambda x: torch.clamp(x, -1, 1) + (bits(x) - torch.clamp(x, -1, 1)).detach(),
    "x + (s - x)": lambda x: x + (bits(x) - x),
    "a clip of what is far away": lambda x: torch.clamp((x >= 0).float() * 9 - 4, -1, 1),
    "an activation of bits": lambda x: F.gelu(bits(x)),
    "heaviside": lambda x: torch.heaviside(x, torch.tensor(1.0)) * 2 - 1,
    "copysign": lambda x: torch.copysign(torch.tensor(1.0), x),  # of -0.0 too
    "signbit": lambda x: 1 - 2 * torch.signbit(x).float(),
    "of two tensors": lambda x: torch.where(x >= x.flip(1), 1.0, -1.0),
    "a product of signs": lambda x: bits(x) * other(x) * 0.5,
    "a maximum of signs": lambda x: torch.maximum(bits(x), other(x)),
    "a majority": lambda x: torch.sign(bits(x) + other(x) + bits(x.roll(1, 1))),
    "a clip of a sum": lambda x: (bits(x) + other(x) + 1).clamp(-1, 1),
}
MOVES: dict[str, Function] = {
    "chunk": lambda x: torch.cat(bits(x).chunk(2, 1)[::-1], 1),
    "split": lambda x: torch.cat(bits(x).split([3, 5], 1)[::-1], 1),
    "cat": lambda x: torch.cat([bits(x[:, :3]), bits(x[:, 3:] - 0.3)], 1),
    "cat of a constant": lambda x: torch.cat(
        [bits(x[:, :7]), bits(PER_CHANNEL[:, :1].expand(1, 1, 4, 4))], 1
    ),
    "index": lambda x: bits(x)[:, torch.tensor([3, 1, 0, 2, 7, 5, 6, 4])],
    "index_select": lambda x: torch.index_select(bits(x), 1, torch.tensor([3, 1, 0, 2, 7, 5, 6, 4])),
    "gather": lambda x: torch.gather(bits(x), 1, torch.arange(8).flip(0).view(1, 8, 1, 1).expand(SHAPE)),
    "take_along_dim": lambda x: torch.take_along_dim(bits(x), torch.tensor([[[[1]]]]).expand(1, 8, 4, 1), 3),
    "shuffle": lambda x: bits(x).view(1, 2, 4, 4, 4).transpose(1, 2).reshape(SHAPE),
    "channel_shuffle": lambda x: F.channel_shuffle(bits(x), 4),
    "flip": lambda x: bits(x).flip(3),
    "rot90": lambda x: torch.rot90(bits(x), 1, (2, 3)),
    "roll": lambda x: torch.roll(bits(x), (1, -1), (2, 3)),
    "roll of truths": lambda x: (x >= 0).roll(1, 2).float() * 2 - 1,
    "tile": lambda x: bits(x).repeat(1, 1, 2, 1),
    "expand": lambda x: bits(x[:, :, :1]).expand(-1, -1, 4, -1),
    "repeat_interleave": lambda x: bits(x).repeat_interleave(2, 3),
    "nearest": lambda x: F.interpolate(bits(x), scale_factor=2.0, mode="nearest"),
    "nearest, to a size": lambda x: F.interpolate(bits(x), size=(8, 4), mode="nearest"),
    "nearest-exact": lambda x: F.interpolate(bits(x), size=(8, 8), mode="nearest-exact"),
    "nearest of truths": lambda x: F.interpolate((x >= 0).float(), scale_factor=2.0) * 2 - 1,
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(bits(x), 2), 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(bits(x), 2)[:, ::4],
    "unfold": lambda x: F.unfold(bits(x[:, :2]), 2, stride=2).unsqueeze(-1),
    "unfold of an axis": lambda x: bits(x).unfold(2, 2, 1).unfold(3, 3, 1).reshape(1, 8, 3, -1),
    "slices": lambda x: bits(x)[:, :, 1:, ::2],
    "select": lambda x: bits(x)[:, :, 1].unsqueeze(2),
    "diagonal": lambda x: torch.stack([bits(x)[:, :, i, i] for i in range(4)], 2).unsqueeze(-1),
    "padded with 1": lambda x: F.pad(bits(x), (1, 0, 2, 1), value=1.0),
    "padded with -1": lambda x: F.pad(bits(x), (1, 1, 1, 1), value=-1.0),
    "padded before a scale": lambda x: F.pad((x >= 0).float(), (1, 1, 1, 1)) * 2 - 1,
    "cropped": lambda x: F.pad(bits(x), (-1, 0, 0, -1)),
    "replicated": lambda x: F.pad(bits(x), (1, 1, 1, 1), mode="replicate"),
    "reflected": lambda x: F.pad(bits(x), (1, 1, 1, 1), mode="reflect"),
    "permuted": lambda x: bits(x.movedim(1, 3)).movedim(3, 1).transpose(2, 3),
    "flattened": lambda x: bits(x).flatten(2).unsqueeze(-1),
    "stacked": lambda x: torch.stack([bits(x), bits(-x)], 2).flatten(1, 2)[:, ::2],
    "max pool": lambda x: F.max_pool2d(bits(x), 3, 2, 1),
    "min pool": lambda x: -F.max_pool2d(-bits(x), 2),
    "amax": lambda x: bits(x).amax(3, keepdim=True),
    "amin": lambda x: bits(x).amin(3, keepdim=True),
    "masked": lambda x: torch.where(x > 0.5, bits(x), other(x)).masked_fill(x > 2, -1.0),
    "put into a slice": put_slice,
    "put into all slices": put_all,
    "circular": lambda x: F.pad(bits(x), (1, 2, 0, 1), mode="circular"),
    "scattered": lambda x: bits(x).scatter(1, torch.zeros(1, 1, 4, 4, dtype=torch.long), 1.0),
    "dropout": lambda x: F.dropout2d(bits(x), 0.5, False).clone().contiguous().detach(),
}
# What has more values than the kernels have, and the reason.
FLOATS: dict[str, tuple[Function, str]] = {
    "a float": (lambda x: F.relu(x), "it comes from relu, not from a sign"),
    "the input": (lambda x: x, "the network's input, which is not binary"),
    "an average": (lambda x: F.avg_pool2d(bits(x), 2) * 2 - 1, "it comes from avg_pool2d, not from a sign"),
    "between pixels": (lambda x: F.interpolate(bits(x), scale_factor=2.0, mode="bilinear"), "resize2d"),
    "beside floats": (
        lambda x: torch.cat([bits(x[:, :4]), F.relu(x[:, 4:])], 1),
        "from concat, one part of which is not binary: it comes from relu, not from a sign",
    ),
    "a sign and a float": (lambda x: bits(x) + x, "it comes from add, not from a sign"),
    "a scale per channel": (lambda x: bits(x) * (PER_CHANNEL + 2), "it comes from multiply, not from a sign"),
    "almost a sign": (lambda x: x / (x.abs() + 1e-12), "it comes from divide, not from a sign"),
    "a steep clip": (lambda x: (x * 1e30).clamp(-1, 1), "it comes from clip, not from a sign"),
    "a norm of bits": (lambda x: F.layer_norm(bits(x), (4, 4)), "it comes from layer_norm, not from a sign"),
    "argmin": (lambda x: torch.stack([x, -x, x / 2]).argmin(0).float() - 1, "it comes from argmin, not from"),
    "xor of integers": (
        lambda x: ((x >= 0).int() ^ (x.flip(1) >= 0).int()).float(),
        "it comes from bitwise_xor, not from",
    ),
    "softmax": (lambda x: x.softmax(1), "it comes from softmax, not from a sign"),
}


class Spelled(nn.Module):
    """One layer for each spelling; the last channel of its weights is off alpha by rounding."""

    def __init__(self, functions: list[Function]) -> None:
        super().__init__()
        self.functions = functions
        signs = torch.randint(0, 2, (len(functions), 5, 8, 1, 1), generator=torch.Generator().manual_seed(0))
        weights = (signs * 2.0 - 1) * 0.3
        weights[:, 4, ::4] *= 1 + 2.0**-22
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.conv2d(f(x), w) for f, w in zip(self.functions, self.weights, strict=True)]


def edges() -> Tensor:
    """Numbers at which some spelling changes, and their neighbours."""
    at = np.float32([0, 1, -1, 0.5, -0.5, 0.7, -0.7, 0.3, 2, 1e-30])
    near = [at, np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-9)), -np.zeros(2, np.float32)]
    return torch.from_numpy(np.resize(np.concatenate(near), SHAPE))


def compiled(functions: dict[str, Function], source: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The artifact, verified, and its layer for each spelling that the source can write."""
    kept = {name: f for name, f in functions.items() if source != "onnx" or name not in NOT_IN_ONNX}
    model, x = Spelled(list(kept.values())).eval(), edges()
    return verified(model, x, kept, source, folder)


@pytest.mark.parametrize("source", ["torch", "onnx"])
@pytest.mark.parametrize(("functions", "least"), [(SIGNS, 75), (MOVES, 35)], ids=["signs", "moves"])
def test_spellings_are_bits(functions: dict[str, Function], least: int, source: str, tmp_path: Path) -> None:
    _, found = compiled(functions, source, tmp_path)
    assert not {name: layer["reason"] for name, layer in found.items() if not layer["binarized"]}
    assert len(found) >= least
    assert {
        name for name, layer in found.items() if "weights from +-alpha, by 2e-07 of" not in layer["notes"]
    } == set()
    noted = {name for name, layer in found.items() if "but for rounding in the source" in layer["notes"]}
    assert noted == DETOURS & set(found)


# What is written in another way in core operators, and by PyTorch's newer exporter to ONNX.
WRITTEN_ANEW = (
    "equal to True", "an xor of truths", "truths in order", "not", "in place", "put twice", "any",
    "a clip of what is far away", "circular", "put into all slices", "put into a slice", "roll", "reflected",
)  # fmt: skip


@pytest.mark.parametrize("source", ["core", "dynamo"])
def test_what_is_written_in_another_way(source: str, tmp_path: Path) -> None:
    _, found = compiled({name: (SIGNS | MOVES)[name] for name in WRITTEN_ANEW}, source, tmp_path)
    assert not {name: layer["reason"] for name, layer in found.items() if not layer["binarized"]}


def test_nan_is_on_the_side_where_pytorch_has_it(tmp_path: Path) -> None:
    """Of a comparison, and of what is not one: TVM takes the two for opposites."""
    names = "where", "1 - 2 b", "where of tensors", "not", "equal to True", "truths in order", "where s == 0"
    model, x = Spelled([SIGNS[name] for name in names]).eval(), edges()
    artifact, _ = verified(model, x, names, "torch", tmp_path)
    x[:, ::3] = torch.nan
    for name, ours, theirs in zip(names, artifact.run(x.numpy()), model(x), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


class Tokens(nn.Module):
    """Linear layers over rows that do not lie together, whose weights PyTorch repeats for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 5), nn.Linear(8, 3)])

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = bits(x).flatten(2).transpose(1, 2)
        return [F.linear(rows, torch.where(m.weight >= 0, 0.3, -0.3), m.bias) for m in self.layers]


def test_linear_layers_of_core_operators(tmp_path: Path) -> None:
    x = torch.randn(2, *SHAPE[1:])
    program = torch.export.export(Tokens().eval(), (x,), strict=False).run_decompositions()
    assert any("bmm" in str(node.target) for node in program.graph.nodes), "It is one product: ours can go."
    _, found = verified(Tokens().eval(), x, ["a", "b"], "core", tmp_path)
    assert [(layer["binarized"], layer["op"]) for layer in found.values()] == [(True, "linear")] * 2, found


@pytest.mark.parametrize("source", ["torch", "onnx"])
def test_others_are_float_with_the_operator_that_is_in_the_way(source: str, tmp_path: Path) -> None:
    _, found = compiled({name: f for name, (f, _) in FLOATS.items()}, source, tmp_path)
    assert {
        n: s["reason"] for n, s in found.items() if s["binarized"] or FLOATS[n][1] not in s["reason"]
    } == {}
