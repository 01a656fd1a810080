"""The proof of the verification: one fault at a time in the compiler, and each makes it fail.

A fault is one wrong number, in a pass, in packed constants or in a kernel, in a classifier, a regressor of
one output and a heat map. Without one, each of the three passes.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainers
from bibench_tvm import compile_model
from bibench_tvm.compiling import compiler
from bibench_tvm.importer import Imported, import_model, source
from relay_passes import find_binary, fold_thresholds, quantize_float_layers
from relay_passes.ir import binary_sums
from relay_passes.kernels import binary_convolution, float_layer, gate
from schedules.parts import borders, epilogue

Patch = pytest.MonkeyPatch


def first(array: np.ndarray, change: Callable[[Any], Any]) -> np.ndarray:
    """The array with its first element changed."""
    array = array.copy()
    array.flat[0] = change(array.flat[0])
    return array


def wrapped(patch: Patch, owner: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Change what a function returns."""
    honest = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **options: change(honest(*args, **options)))


# ---- in a pass


def threshold(patch: Patch) -> None:
    # By two, since the sums of an even number of signs are even.
    wrapped(patch, fold_thresholds, "_bisect", lambda found: (first(found[0], lambda t: t + 2), found[1]))


def direction(patch: Patch) -> None:
    wrapped(patch, fold_thresholds, "_bisect", lambda found: (found[0], first(found[1], lambda f: not f)))


def dropped_channel(patch: Patch) -> None:
    def change(weights: Any) -> Any:
        if isinstance(weights, str):
            return weights
        signs = weights.signs.copy()
        signs[..., 0] = True
        return type(weights)(signs, weights.alpha)

    wrapped(patch, find_binary, "binary_weights", change)


def scale(patch: Patch) -> None:
    def change(weights: Any) -> Any:
        if isinstance(weights, str):
            return weights
        return type(weights)(weights.signs, weights.alpha * np.float32(1.01))

    wrapped(patch, find_binary, "binary_weights", change)


def inverted_activation(patch: Patch) -> None:
    honest = binary_sums.truth
    opposite = lambda builder, *args: builder.emit(binary_sums.relax.op.logical_not(honest(builder, *args)))  # noqa: E731
    patch.setattr(binary_sums, "truth", opposite)


# ---- in packed constants


def weight_bit(patch: Patch) -> None:
    wrapped(patch, binary_convolution, "pack_weights", lambda words: first(words, lambda word: word ^ 1))


def float_weight(patch: Patch) -> None:
    for place in (float_layer, gate):
        wrapped(patch, place, "lay_out", lambda w: first(w, lambda x: x * 1.5) if w.dtype.kind == "f" else w)


def border(patch: Patch) -> None:
    wrapped(
        patch,
        binary_convolution,
        "border_tables",
        lambda tables: (first(tables[0], lambda t: t + 4), *tables[1:]),
    )


def border_class(patch: Patch) -> None:
    wrapped(patch, binary_convolution, "border_tables", lambda t: (t[0], first(t[1], lambda x: x + 1), t[2]))


def limit(patch: Patch) -> None:
    def change(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table[..., 0] += 1  # of the first channel: a class of pixels may have no sum just there
        return table

    wrapped(patch, binary_convolution, "limit_table", change)


# ---- in a kernel


def epilogue_scale(patch: Patch) -> None:
    """In kernels alone, and not in their numpy twins."""
    multiply = epilogue.OPERATORS["relax.multiply"]

    def wrong(math: Any, a: Any, b: Any) -> Any:
        product = multiply(math, a, b)
        return product * epilogue._as(product, 1.001) if math is epilogue._InKernel else product

    patch.setitem(epilogue.OPERATORS, "relax.multiply", wrong)


def padding(patch: Patch) -> None:
    """Every row is settled as if it were the first."""
    settle = borders.Borders.settle
    patch.setattr(
        borders.Borders, "settle", lambda self, count, oh, *rest: settle(self, count, oh * 0, *rest)
    )


def artifact_alone(patch: Patch) -> None:
    """The probe is right, and the artifact is not."""
    honest = compiler.build

    def build(*args: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            if not args[-1].probe:
                float_weight(inner)
            return honest(*args)

    patch.setattr(compiler, "build", build)


FAULTS = [threshold, dropped_channel, scale, weight_bit, border, epilogue_scale, artifact_alone]
MORE_FAULTS = [direction, inverted_activation, float_weight, border_class, limit, padding]


# ---- the networks


class GlobalMean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


HEADS: dict[str, Callable[[], list[torch.nn.Module]]] = {
    "classifier": lambda: [torch.nn.Flatten(), torch.nn.Linear(16 * 49, 5)],
    "regressor": lambda: [GlobalMean(), torch.nn.Linear(16, 1)],
    "heat map": lambda: [torch.nn.Conv2d(16, 2, 1)],
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Imported]:
    """Imported once: the regressor from ONNX, the others from PyTorch."""
    found = {}
    for name, head in HEADS.items():
        torch.manual_seed(0)
        body = [
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.Conv2d(16, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.Conv2d(16, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
        ]
        layers = [*body, *head()]
        keep = ["0", str(len(layers) - 1)]
        network = trainers.binarize(torch.nn.Sequential(*layers), "bireal", keep=keep).train()
        with torch.no_grad():
            network(torch.randn(8, 3, 7, 7))
        example = torch.zeros(1, 3, 7, 7)
        if name == "regressor":
            path = tmp_path_factory.mktemp("onnx") / "regressor.onnx"
            torch.onnx.export(network.eval(), (example,), path, dynamo=False)
            found[name] = import_model(path)
        else:
            found[name] = import_model(network.eval(), example_inputs=example)
    return found


@pytest.fixture
def verified(
    networks: dict[str, Imported], tmp_path: Path, monkeypatch: Patch
) -> Callable[..., dict[str, Any]]:
    def run(name: str, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(source, "import_model", lambda *args, **options: networks[name])
        return compile_model(None, out=tmp_path, verify=2, **options).manifest["verification"]

    return run


@pytest.mark.parametrize(
    ("fault", "name"),
    [*itertools.product(FAULTS, HEADS), *zip(MORE_FAULTS, itertools.cycle(HEADS), strict=False)],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_is_caught(
    fault: Callable[[Patch], None],
    name: str,
    verified: Callable[..., dict[str, Any]],
    monkeypatch: Patch,
) -> None:
    fault(monkeypatch)
    record = verified(name)
    assert record["samples"] == 2 and record["passed"] is False, record
    assert record["reason"]


@pytest.mark.parametrize("float_layers", ["float32", "int8"])
@pytest.mark.parametrize("name", HEADS)
def test_no_fault(name: str, float_layers: str, verified: Callable[..., dict[str, Any]]) -> None:
    record = verified(name, float_layers=float_layers)
    assert record["passed"] is True, record["reason"]
    assert record["unexcused_flips"] == record["outputs_off"] == 0
    assert (record["agreement"] is None) == (name != "classifier")


def int8_weight(patch: Patch) -> None:
    wrapped(patch, quantize_float_layers, "quantize_weights", lambda w: (first(w[0], lambda q: q ^ 1), w[1]))


def int8_scale(patch: Patch) -> None:
    wrapped(
        patch, quantize_float_layers, "quantize_weights", lambda w: (w[0], first(w[1], lambda s: s * 1.01))
    )


@pytest.mark.parametrize("fault", [int8_weight, int8_scale, weight_bit], ids=lambda fault: fault.__name__)
def test_is_caught_in_int8(
    fault: Callable[[Patch], None], verified: Callable[..., dict[str, Any]], monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    assert verified("regressor", float_layers="int8")["passed"] is False
