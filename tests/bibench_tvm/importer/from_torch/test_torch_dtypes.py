"""PyTorch networks in other types than float32: compiled with the source's types and values, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bibench_tvm import compile_model
from bibench_tvm.importer import ImportFailed, import_model


class Net(nn.Module):
    """A stem, signs, a binary convolution with scales; `weight` as it is kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16))
        scales = torch.rand(8, 1, 1, 1, generator=generator) + 0.05
        self.weight = nn.Parameter(torch.randn(8, 16, 3, 3, generator=generator).sign() * scales)
        with torch.no_grad():
            self.stem[0].weight.copy_(torch.randn(16, 3, 3, 3, generator=generator))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        bits = torch.where(h >= 0, 1.0, -1.0).to(h.dtype)
        return nn.functional.conv2d(bits, self.weight, padding=1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(x)


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def check(
    network: nn.Module | Path,
    *inputs: torch.Tensor,
    like: nn.Module,
    out: Path,
    tolerance: float,
    binary: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """The artifact gives what `like` gives, in its types. Returns the manifest."""
    example = None if isinstance(network, Path) else inputs
    artifact = compile_model(network, example, out=out / "built", verify=2, **options)
    manifest = artifact.manifest
    assert manifest["verification"]["passed"], manifest["verification"]["reason"]
    assert sum(layer["binarized"] for layer in manifest["layers"]) == binary
    with torch.no_grad():
        theirs = like.eval()(*inputs)
    ours = artifact.run(*(x.numpy() for x in inputs))
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    ours = ours if isinstance(ours, tuple) else (ours,)
    for a, b, spec in zip(ours, theirs, manifest["outputs"], strict=True):
        assert str(a.dtype) == str(b.dtype).removeprefix("torch.") == spec["dtype"]
        b = b.double().numpy()
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(initial=0.01)
    assert [s["dtype"] for s in manifest["inputs"]] == [str(x.dtype).removeprefix("torch.") for x in inputs]
    return manifest


def refused(model: nn.Module, inputs: Any, words: str, **options: Any) -> None:
    with pytest.raises(ImportFailed, match=words) as caught:
        import_model(model, example_inputs=inputs, **options)
    said = str(caught.value)
    assert said.endswith(".") and "\n" not in said and len(said) < 400


@pytest.mark.parametrize("saved", [True, False])
def test_half_precision(saved: bool, tmp_path: Path):
    network = Net().half().eval()
    before = network.weight.clone()
    x = images(torch.float16)
    given: nn.Module | Path = network
    if saved:
        given = tmp_path / "half.pt2"
        torch.export.save(torch.export.export(network, (x,)), given)
    manifest = check(given, x, like=network, tolerance=5e-3, out=tmp_path)
    assert any("float16" in note and "float32" in note for note in manifest["notes"])
    assert manifest["inputs"][0]["name"] == "x" and manifest["outputs"][0]["name"].startswith("conv2d")
    assert [layer["name"] for layer in manifest["layers"]][0] == "stem.0"
    assert network.weight.dtype is torch.float16 and torch.equal(network.weight, before)


def test_float64_is_asked_for(tmp_path: Path):
    network = Net().double().eval()
    x = images(torch.float64)
    refused(network, x, r"'x' of Net is float64.*--float32.*float32=True")
    check(network, x, like=network, tolerance=1e-5, out=tmp_path, float32=True)
    assert network.weight.dtype is torch.float64


def test_bfloat16_inputs_become_float32(tmp_path: Path):
    network, x = Net().bfloat16().eval(), images(torch.bfloat16)
    refused(network, x, r"'x' of Net is bfloat16.*--float32")
    artifact = compile_model(network, x, out=tmp_path, verify=2, float32=True)
    manifest = artifact.manifest
    assert [s["dtype"] for s in (*manifest["inputs"], *manifest["outputs"])] == ["float32", "float32"]
    assert manifest["verification"]["passed"]
    with torch.no_grad():
        same = Net().eval()
        same.load_state_dict({key: value.float() for key, value in network.state_dict().items()})
        expected = same(x.float()).numpy()
    np.testing.assert_allclose(artifact.run(x.float().numpy()), expected, rtol=1e-4, atol=1e-4)


class Autocast(Net):
    def forward(self, x: torch.Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.body(x)
        return y.float()


class HalfBody(Net):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.body(x)
        low = nn.functional.relu(y.half() * 0.5) + torch.ones(8, 1, 1, dtype=torch.float16)
        return low.float().mean((2, 3)), low


class NoGradient(Net):
    def forward(self, x: torch.Tensor) -> Any:
        with torch.no_grad():
            x = x * 2
        return self.body(x)


@pytest.mark.parametrize("kind", [Autocast, HalfBody, NoGradient])
def test_mixed_precision(kind: Callable[[], nn.Module], tmp_path: Path):
    network = kind().eval()
    # Where the stem rounds to 8 bits signs flip, so autocast is compared with the same network without it.
    like = Net().eval() if kind is Autocast else network
    tolerance = 5e-3 if kind is HalfBody else 1e-5
    manifest = check(network, images(), like=like, tolerance=tolerance, out=tmp_path)
    assert bool(manifest["notes"]) == (kind is not NoGradient)


class Kept(Net):
    """Signs in bits or a byte, scales in half precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer(
            "signs", (self.weight >= 0) if dtype is torch.bool else self.weight.sign().to(dtype)
        )
        self.register_buffer("scales", self.weight.detach().abs().amax((1, 2, 3), keepdim=True).half())
        del self.weight

    @property
    def weight(self) -> torch.Tensor:
        signs = torch.where(self.signs, 1.0, -1.0) if self.signs.dtype is torch.bool else self.signs.float()
        return signs * self.scales.float()


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float64, torch.bfloat16])
def test_weights_kept_in_another_type(dtype: torch.dtype, tmp_path: Path):
    network = Kept(dtype).eval()
    assert not check(network, images(), like=network, tolerance=1e-5, out=tmp_path)["notes"]


class Classes(Net):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        scores = self.body(x.float() / 255).mean((2, 3))
        scores = torch.where(mask, scores, torch.zeros(()))
        best = scores.argmax(1)
        return best, best.to(torch.int32) + 1, scores > 0, x.to(torch.int16) * 3 - 7, scores


def test_pixels_masks_and_classes(tmp_path: Path):
    network = Classes().eval()
    x = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1]], dtype=torch.bool)
    check(network, x, mask, like=network, tolerance=1e-5, out=tmp_path)


class Ids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)

    def forward(self, ids: torch.Tensor, more: torch.Tensor) -> Any:
        return (
            self.table(ids),
            ids * 2 + (1 << 40),
            ids // 3,
            torch.div(more, 2, rounding_mode="trunc"),
            more % 3,
            more // 3,
            (ids > 7).cumsum(1),
            (ids > 3).sum(1),
            torch.where(ids > 3, 3, 5),
        )


def test_integers_are_exact(tmp_path: Path):
    network = Ids().eval()
    ids, more = torch.arange(20).reshape(2, 10), torch.arange(-10, 10, dtype=torch.int32)
    check(network, ids, more, like=network, binary=0, tolerance=0, out=tmp_path)


class Through(nn.Module):
    def forward(self, x: torch.Tensor, wide: torch.Tensor) -> Any:
        return (x.double().float() + wide.float()), (x > 0).double(), x.argmax(-1).double()


def test_casts_by_way_of_float64_are_exact(tmp_path: Path):
    wide = images(torch.float64) / 3
    network = Through()
    assert not check(network, images(), wide, like=network, binary=0, tolerance=0, out=tmp_path)["notes"]


def test_what_is_not_compiled():
    class Apply(nn.Module):
        def __init__(self, function: Callable) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: torch.Tensor) -> Any:
            return self.function(x)

    x = torch.ones(2, 4)
    refused(Apply(torch.abs), x.to(torch.complex64), "'x' of Apply is complex64.*cast it")
    refused(Apply(lambda x: torch.fft.fft(x).real), x, r"fft.* \(operator aten\..*\) of Apply is complex64")
    low = torch.float8_e4m3fn
    refused(Apply(lambda x: x.to(low).float()), x, "is float8_e4m3fn, which is not compiled.*cast it")
    refused(
        Apply(lambda x: x.double() * 2), x, r"'to' \(operator aten\.to.*\) of Apply is float64.*--float32"
    )
