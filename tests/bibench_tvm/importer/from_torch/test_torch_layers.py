"""Layers and operators of PyTorch: TVM computes what PyTorch computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm import relax

from bibench_tvm.importer import ImportFailed, import_model

IMAGE, SEQUENCE, TOKENS = (2, 6, 9, 11), (2, 6, 13), (2, 5, 8)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attend(x, x, x, need_weights=False)[0]


def put_rows(x):
    y = x.clone()
    y[:, [0, -1]] = 1.0
    return y


def trained(norm: nn.Module) -> nn.Module:
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        if tensor is not None:
            nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


MODULES = {
    "conv1d": (lambda: nn.Conv1d(6, 8, 3, stride=2, padding=1, dilation=2, groups=2), SEQUENCE),
    "conv1d same": (lambda: nn.Conv1d(6, 8, 4, padding="same"), SEQUENCE),
    "conv1d circular": (lambda: nn.Conv1d(6, 8, 3, padding=2, padding_mode="circular"), SEQUENCE),
    "conv2d grouped": (lambda: nn.Conv2d(6, 9, 3, stride=2, padding=(1, 2), dilation=2, groups=3), IMAGE),
    "conv2d depthwise": (lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6), IMAGE),
    "conv2d same": (lambda: nn.Conv2d(6, 8, (4, 3), padding="same", dilation=(1, 2)), IMAGE),
    "conv2d valid": (lambda: nn.Conv2d(6, 8, 3, padding="valid"), IMAGE),
    "conv2d circular": (lambda: nn.Conv2d(6, 8, 3, padding=(1, 2), padding_mode="circular"), IMAGE),
    "conv2d reflect": (lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv2d replicate": (lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="replicate"), IMAGE),
    "conv2d unbatched": (lambda: nn.Conv2d(6, 8, 3, padding=1), IMAGE[1:]),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, stride=(1, 2, 1), padding=1), (1, 2, 5, 6, 7)),
    "conv1d transposed": (
        lambda: nn.ConvTranspose1d(6, 8, 3, stride=2, padding=1, output_padding=1),
        SEQUENCE,
    ),
    "conv2d transposed": (
        lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGE,
    ),
    "conv2d transposed dilated": (lambda: nn.ConvTranspose2d(6, 8, 3, dilation=2, padding=1), IMAGE),
    "conv3d transposed": (lambda: nn.ConvTranspose3d(2, 4, 3, stride=2, padding=1), (1, 2, 4, 5, 6)),
    "linear": (lambda: nn.Linear(8, 5), (3, 8)),
    "linear of three": (lambda: nn.Linear(8, 5, bias=False), TOKENS),
    "linear of one": (lambda: nn.Linear(8, 5), (8,)),
    "batch norm 1d": (lambda: trained(nn.BatchNorm1d(6)), SEQUENCE),
    "batch norm 1d of two": (lambda: trained(nn.BatchNorm1d(6)), (4, 6)),
    "batch norm 2d": (lambda: trained(nn.BatchNorm2d(6, eps=1e-2)), IMAGE),
    "batch norm 2d plain": (lambda: trained(nn.BatchNorm2d(6, affine=False)), IMAGE),
    "batch norm 2d no statistics": (lambda: nn.BatchNorm2d(6, track_running_stats=False), IMAGE),
    "batch norm 3d": (lambda: trained(nn.BatchNorm3d(2)), (1, 2, 3, 4, 5)),
    "group norm": (lambda: nn.GroupNorm(3, 6), IMAGE),
    "instance norm": (lambda: nn.InstanceNorm2d(6, affine=True), IMAGE),
    "layer norm": (lambda: nn.LayerNorm(8), TOKENS),
    "layer norm plain": (lambda: nn.LayerNorm((5, 8), elementwise_affine=False), TOKENS),
    "max pool 1d": (lambda: nn.MaxPool1d(3, 2, padding=1), SEQUENCE),
    "max pool 2d": (lambda: nn.MaxPool2d(2), IMAGE),
    "max pool 2d ceil": (lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), IMAGE),
    "max pool 2d ceil dropped window": (lambda: nn.MaxPool2d(2, 2, padding=1, ceil_mode=True), (1, 3, 5, 7)),
    "max pool 2d dilated": (lambda: nn.MaxPool2d(2, 1, dilation=2), IMAGE),
    "avg pool 1d": (lambda: nn.AvgPool1d(3, 2, padding=1), SEQUENCE),
    "avg pool 2d": (lambda: nn.AvgPool2d(3, 2, padding=1), IMAGE),
    "avg pool 2d without padding": (lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), IMAGE),
    "avg pool 2d ceil": (lambda: nn.AvgPool2d(3, 2, ceil_mode=True), (1, 3, 8, 10)),
    "avg pool 2d ceil padded": (lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (1, 3, 8, 10)),
    "avg pool 2d divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), IMAGE),
    "adaptive avg pool 1d": (lambda: nn.AdaptiveAvgPool1d(4), SEQUENCE),
    "adaptive avg pool 2d": (lambda: nn.AdaptiveAvgPool2d((1, 1)), IMAGE),
    "adaptive avg pool 2d uneven": (lambda: nn.AdaptiveAvgPool2d((4, 5)), IMAGE),
    "adaptive max pool 2d": (lambda: nn.AdaptiveMaxPool2d(1), IMAGE),
    "adaptive max pool 2d windows": (lambda: nn.AdaptiveMaxPool2d((3, 11)), IMAGE),
    "adaptive max pool 2d uneven": (lambda: nn.AdaptiveMaxPool2d((4, 13)), IMAGE),
    "adaptive max pool 1d uneven": (lambda: nn.AdaptiveMaxPool1d(3), SEQUENCE),
    "hardtanh": (lambda: nn.Hardtanh(), IMAGE),
    "hardtanh of two bounds": (lambda: nn.Hardtanh(-0.5, 2.0), IMAGE),
    "relu": (lambda: nn.ReLU(inplace=True), IMAGE),
    "relu6": (lambda: nn.ReLU6(), IMAGE),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), IMAGE),
    "prelu": (lambda: nn.PReLU(6), IMAGE),
    "prelu shared": (lambda: nn.PReLU(), IMAGE),
    "prelu tokens": (lambda: nn.PReLU(5), TOKENS),
    "elu": (lambda: nn.ELU(), IMAGE),
    "silu": (lambda: nn.SiLU(), IMAGE),
    "gelu": (lambda: nn.GELU(), TOKENS),
    "gelu tanh": (lambda: nn.GELU(approximate="tanh"), TOKENS),
    "sigmoid": (lambda: nn.Sigmoid(), IMAGE),
    "tanh": (lambda: nn.Tanh(), IMAGE),
    "hardswish": (lambda: nn.Hardswish(), IMAGE),
    "hardsigmoid": (lambda: nn.Hardsigmoid(), IMAGE),
    "softplus": (lambda: nn.Softplus(), IMAGE),
    "softmax": (lambda: nn.Softmax(-1), TOKENS),
    "log softmax": (lambda: nn.LogSoftmax(1), TOKENS),
    "dropout": (lambda: nn.Dropout(0.5), IMAGE),
    "dropout 2d": (lambda: nn.Dropout2d(0.5), IMAGE),
    "flatten": (lambda: nn.Flatten(), IMAGE),
    "zero pad": (lambda: nn.ZeroPad2d((1, 0, 2, 3)), IMAGE),
    "negative pad": (lambda: nn.ZeroPad2d((1, -1, -2, 3)), IMAGE),
    "constant pad": (lambda: nn.ConstantPad1d((2, 1), -1.5), SEQUENCE),
    "reflection pad": (lambda: nn.ReflectionPad2d((1, 2, 0, 3)), IMAGE),
    "replication pad": (lambda: nn.ReplicationPad2d((1, 2, 0, 3)), IMAGE),
    "upsample nearest": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "upsample bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "upsample bilinear corners": (
        lambda: nn.Upsample(size=(12, 20), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "avg pool 3d divisor": (lambda: nn.AvgPool3d(2, divisor_override=3), (1, 2, 4, 4, 6)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (1, 8, 3, 4)),
    "channel shuffle": (lambda: nn.ChannelShuffle(3), IMAGE),
    "attention": (SelfAttention, TOKENS),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS),
    "lstm": (lambda: nn.LSTM(8, 4, batch_first=True), TOKENS),
    "gru": (lambda: nn.GRU(8, 4, batch_first=True), TOKENS),
    "channels last weights": (lambda: nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last), IMAGE),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 3)), IMAGE),
}

FUNCTIONS = {
    "asymmetric pad": lambda x: F.pad(x, (1, 2, 0, 3)),
    "pad with a value": lambda x: F.pad(x, (1, 2), value=-1.0),
    "circular pad": lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"),
    "cat": lambda x: torch.cat([x, x * 2, x[:, :1]], 1),
    "stack": lambda x: torch.stack([x, -x], 1),
    "split": lambda x: torch.split(x, 4, 1)[1] + 1,
    "chunk": lambda x: torch.cat(torch.chunk(x, 3, 1)[::-1], 1),
    "mean": lambda x: x.mean((2, 3)),
    "mean of all": lambda x: x.mean(),
    "mean kept": lambda x: x.abs().mean(1, keepdim=True),
    "sum": lambda x: x.sum(1),
    "amax": lambda x: x.amax((2, 3)),
    "max along": lambda x: x.max(1).values,
    "max and min, kept": lambda x: torch.max(x, -1, keepdim=True)[0] + torch.min(x, 2, keepdim=True)[0],
    "max with its index": lambda x: x.max(1),
    "product": lambda x: (x.prod(), x.prod(1), x.prod(-1, keepdim=True), (x > 0).prod(2), x.int().prod(3)),
    "argmax": lambda x: x.argmax(1),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std((2, 3), unbiased=False),
    "norm": lambda x: x.norm(dim=1),
    "view": lambda x: x.view(2, 3, -1),
    "reshape": lambda x: x.reshape(-1, 11),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    "transpose": lambda x: x.transpose(1, 2) @ x.transpose(1, 2).transpose(-1, -2),
    "flatten": lambda x: x.flatten(1, 2),
    "squeeze": lambda x: x.unsqueeze(2).squeeze(2) + x[:, :, None].squeeze(),
    "slice": lambda x: x[:, 1:5:2, :-1, ::3],
    "select": lambda x: x[:, 2] * x[:, -1],
    "gather by index": lambda x: x[:, [3, 0, 5]],
    "index by arange": lambda x: x[:, torch.arange(0, 6, 2)],
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "flip": lambda x: x.flip(2, 3),
    "expand": lambda x: x[:, :1].expand(-1, 6, -1, -1) + x,
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat interleave": lambda x: x.repeat_interleave(2, dim=1),
    "unbind": lambda x: x.unbind(1)[2] + 1,
    "matmul 4d": lambda x: x @ x.transpose(-1, -2),
    "matmul broadcast": lambda x: x @ torch.ones(11, 4),
    "matmul vector": lambda x: x @ torch.ones(11),
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0, :, :9], x[:, 0], x[:, 1].transpose(1, 2), beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(torch.ones(4), x[0, 0], torch.ones(11, 4), beta=0.5, alpha=2),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "attention function": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=False),
    "softmax": lambda x: F.softmax(x, 1),
    "cosine": lambda x: F.cosine_similarity(x, x * 2 + 1, 1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "where scalars": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "where scalar and tensor": lambda x: torch.where(x > 0.1, x, -1.0),
    "where tensors": lambda x: torch.where(x <= x.mean(), x, -x),
    "masked fill": lambda x: x.masked_fill(x < 0, -2.0),
    "comparison to sign": lambda x: (x >= 0).float() * 2 - 1,
    "boolean times number": lambda x: (x >= 0) * 2.0 - 1,
    "boolean times integer": lambda x: (x >= 0) * 2 - 1,
    "boolean times tensor": lambda x: (x >= 0) * x,
    "integer times fraction": lambda x: (x >= 0).int() * 0.5,
    "integer quotient": lambda x: (x * 8).int() / 3,
    "integer below fraction": lambda x: (x * 8).int() < 0.5,
    "add with alpha": lambda x: torch.add(x, x.abs(), alpha=3),
    "sub with alpha": lambda x: torch.sub(x, 1.0, alpha=3),
    "rsub": lambda x: torch.rsub(x, 1.0, alpha=2) + (3 - x),
    "integer rsub": lambda x: 0.5 - (x * 8).int(),
    "pow": lambda x: x**2 + (x.abs() + 1) ** -0.5 + 2**x,
    "integer pow": lambda x: (x * 4).int() ** 2,
    "clamp": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1) + x.clamp(max=0.2),
    "clamp by tensors": lambda x: x.clamp(torch.tensor(-0.5), torch.tensor(0.5)),
    "sign": lambda x: torch.sign(x),
    "abs sqrt exp log": lambda x: (x.abs() + 1).sqrt() + x.exp().log1p() + (x.abs() + 0.5).rsqrt(),
    "rounding": lambda x: (x * 4).round() + (x * 4).floor() + (x * 4).ceil() + (x * 4).trunc(),
    "round half": lambda x: ((x * 4).round() / 2).round(),
    "erf": lambda x: torch.erf(x),
    "cumsum": lambda x: x.cumsum(1),
    "topk": lambda x: x.topk(3, 1).values,
    "sort": lambda x: x.sort(1).values,
    "tril": lambda x: x.tril() + x.triu(1),
    "minimum": lambda x: torch.minimum(x, -x) + torch.maximum(x, torch.tensor(0.3)),
    "quantile": lambda x: x.quantile(0.9, dim=1),
    "logical": lambda x: ((x > 0) & (x < 1)) | ~(x > -1),
    "any": lambda x: (x > 1).any(1),
    "type conversion": lambda x: x.to(torch.int8).to(torch.float32) + x.double().float(),
    "two outputs": lambda x: (x + 1, x.mean(1)),
    "dictionary": lambda x: {"a": x + 1, "b": x.mean(1)},
    "straight-through": lambda x: (torch.where(x >= 0, 1.0, -1.0) - x).detach() + x,
    "linear by hand": lambda x: F.linear(x, torch.ones(4, 11), torch.ones(4)),
    "outer": lambda x: torch.outer(x[0, 0, 0], x[0, 0, 1]),
    "dot": lambda x: torch.dot(x[0, 0, 0], x[0, 0, 1]),
    "mv": lambda x: torch.mv(x[0, 0], x[0, 0, 1]),
    "zeros like": lambda x: torch.zeros_like(x) + torch.ones_like(x) * 2 + torch.full_like(x, 0.5),
    "new tensor": lambda x: x.new_zeros(11) + x,
    "in place": lambda x: x.clone().add_(1).mul_(2),
    "bicubic": lambda x: F.interpolate(x, size=(5, 7), mode="bicubic"),
    "bicubic corners": lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic", align_corners=True),
    "bilinear antialias": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", antialias=True),
    "bicubic antialias": lambda x: F.interpolate(x, size=(5, 7), mode="bicubic", antialias=True),
    "bilinear by a broken factor": lambda x: F.interpolate(x, scale_factor=0.6, mode="bilinear"),
    "bilinear to one": lambda x: F.interpolate(x, size=(1, 7), mode="bilinear", align_corners=True),
    "nearest down": lambda x: F.interpolate(x, size=(5, 7)),
    "nearest by a broken factor": lambda x: F.interpolate(x, scale_factor=1.7),
    "nearest exact": lambda x: F.interpolate(x, size=(5, 7), mode="nearest-exact"),
    "area": lambda x: F.interpolate(x, size=(5, 7), mode="area"),
    "trilinear": lambda x: F.interpolate(x[None], scale_factor=2, mode="trilinear"),
    "index from the end": lambda x: x[:, [-1, 0, -2]],
    "index of two axes": lambda x: x[:, [0, 1], [2, -3]],
    "index of two axes apart": lambda x: x[:, [0, 1], :, [2, -3]],
    "index that broadcasts": lambda x: x[:, [[0], [1]], [2, 3]],
    "computed index": lambda x: x[0, :, 0, 0][x.argmax(1) - 3],
    "mask filled": lambda x: x.clone().index_put((x > 0,), torch.tensor(0.5)),
    "mask of rows filled": lambda x: x.index_put((x[:, :, 0, 0] > 0,), torch.tensor(0.5)),
    "rows put": put_rows,
    "elements put": lambda x: x[0, 0].index_put((x.argmax(1)[0, 0] - 6,), torch.tensor(1.0)),
    "put and added": lambda x: x.index_put(
        (torch.tensor([0, 0]), torch.tensor([1, 1])), torch.tensor(1.0), accumulate=True
    ),
    "index select": lambda x: x.index_select(-1, torch.tensor([0, 3, 3])),
    "take": lambda x: x.take(torch.tensor([[0, 3], [5, -1]])),
    "gather": lambda x: x.gather(-1, x[:, :2, :3, :4].argsort(-1)),
    "scatter": lambda x: x.scatter(2, x[:, :2, :3, :4].argsort(2), x),
    "scatter a value": lambda x: x.scatter(1, x.argmax(1, keepdim=True), 2.0),
    "hyperbolic": lambda x: x.sinh() + x.cosh() + (x * 1e-5).sinh() * 1e5,
    "small logarithm and exponential": lambda x: (x * 1e-5).log1p() * 1e5 + (x * 1e-5).expm1() * 1e5,
    "selu": lambda x: F.selu(x) + F.celu(x, 0.7) + F.elu(x, 0.3),
    "clamp integers": lambda x: (x * 8).int().clamp(min=0) + (x * 8).int().clamp(-2, 3),
    "clamp crossed": lambda x: x.clamp(1.0, -1.0),
    "quotient by zero": lambda x: x / 0,
    "truths times and plus truths": lambda x: (x > 0) * (x < 1) + (x > 2),
    "finite or not": lambda x: torch.isfinite(x.log()) ^ torch.isinf(x) | torch.isnan(x),
    "rows of infinities": lambda x: torch.where(x[:, :1] > 0, x, -torch.inf).amax(1),
    "windows of infinities": lambda x: F.max_pool2d(torch.where(x[:, :, :4] > 5, x[:, :, :4], -torch.inf), 2),
    "masked softmax": lambda x: torch.where(x > -1, x, -torch.inf).softmax(1),
    "norms": lambda x: x.norm(1, dim=1) + x.norm(3.0, dim=1) + x.norm(torch.inf, dim=1),
    "var of negative axes": lambda x: x.var((-1, 1), keepdim=True, unbiased=False) + x.std(-1, keepdim=True),
    "reductions of types": lambda x: (x > 0).sum((1, 2), dtype=torch.float32) + (x > 0).cumsum(1)[:, 0, 0],
    "remainders": lambda x: x % 0.7 + torch.remainder(x, -0.7) + torch.fmod(x, 0.7),
    "integer quotients": lambda x: (x * 8).int() // 3 + torch.div((x * 8).int(), -3, rounding_mode="trunc"),
    "split of uneven parts": lambda x: x.chunk(4, -1)[3] + x.tensor_split(3, -1)[1][..., :2],
}

REFUSED = {
    "picked by a mask": (lambda x: x[x > 0], "how many elements a mask picks depends on the values"),
    "a mask with values": (
        lambda x: x.index_put((x > 0,), -x[x > 0]), "how many elements a mask picks depends on the values"
    ),
    "selected by a mask": (lambda x: x.masked_select(x > 0), "depends on the values of the input"),
    "integer power": (lambda x: 2 ** (x * 2).int().abs(), "a power of integers whose exponent is computed"),
    "index outside": (lambda x: x[:, [0, 6]], "indices from 0 to 6 reach outside of 6"),
}  # fmt: skip


class Together(nn.Module):
    """Several modules, each on its own input: one export and one compilation for all of them."""

    def __init__(self, modules):
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs):
        return [part(x) for part, x in zip(self.parts, inputs, strict=True)]


def groups(names, size=12):
    names = list(names)
    return [pytest.param(names[i : i + size], id=f"{names[i]} ...") for i in range(0, len(names), size)]


@pytest.mark.parametrize("names", groups(MODULES))
def test_modules(names, assert_same):
    torch.manual_seed(0)
    inputs = [torch.randn(MODULES[name][1]) for name in names]
    model = Together([MODULES[name][0]() for name in names])
    assert_same(import_model(model, example_inputs=inputs), *(x.numpy() for x in inputs))


@pytest.mark.parametrize("names", groups(FUNCTIONS))
def test_functions(names, assert_same):
    torch.manual_seed(0)
    inputs = [torch.randn(IMAGE) for name in names]
    model = Together([Function(FUNCTIONS[name]) for name in names])
    assert_same(import_model(model, example_inputs=inputs), *(x.numpy() for x in inputs))


def test_embedding(assert_same):
    tokens = np.array([[1, 0, 4], [2, 2, 3]])
    assert_same(import_model(nn.Embedding(5, 8), example_inputs=tokens), tokens)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_sentence(case):
    function, words = REFUSED[case]
    with pytest.raises(ImportFailed, match=words):
        import_model(Function(function), example_inputs=torch.randn(IMAGE))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode, assert_same):
    def sample(x, grid):
        return [
            F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)
            for padding, corners in (("zeros", False), ("border", True), ("reflection", False))
        ]

    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 6, 7), torch.randn(2, 4, 5, 2)
    assert_same(import_model(Function(sample), example_inputs=inputs), *(x.numpy() for x in inputs))


def test_ids_outside_the_vocabulary_are_the_nearest_inside():
    network = import_model(nn.Embedding(5, 8), example_inputs=np.zeros((2, 3), np.int64))
    ids = np.array([[5, 10**6, 2**32 + 1], [-1, -(10**9), 2**62]])
    executable = tvm.compile(network.module, target=tvm.target.Target({"kind": "llvm", "opt-level": 0}))
    run = relax.VirtualMachine(executable, tvm.cpu())["main"]
    nearest = run(tvm.runtime.tensor(np.clip(ids, 0, 4))).numpy()
    np.testing.assert_array_equal(run(tvm.runtime.tensor(ids)).numpy(), nearest)
