"""What other programs say reaches a user as one short sentence, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from typer.testing import CliRunner

import relay_passes
from bibench_tvm.cli.errors import first_line
from bibench_tvm.compile import app

PAGE = """
Traceback (most recent call last):
  File "/opt/build/src/relax/ir/block_builder.cc", line 67, in tvm::relax::Normalize()
[01:06:04] /project/src/relax/ir/block_builder.cc:67: Warning: BlockBuilder destroyed!
# from tvm.script import ir as I
@I.ir_module
class Module:
    def main(x: R.Tensor((1, 3, 8, 8), dtype="float16")):
        return gv
        ^^^^^^^^^
"""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("The axis 5 is out of range", "The axis 5 is out of range."),
        ("\n  Shapes differ. And much more of it.\n", "Shapes differ."),
        (
            "Binary operators must have the same datatype.  However, R.add(lv, lv1) uses T.float32",
            "Binary operators must have the same datatype.",
        ),
        ("InternalError: Check failed: (a == b) is false: the ranks differ", "the ranks differ."),
        (f"{PAGE}ValueError: no such axis", "no such axis."),
        ("R.add(lv, lv1) has no type", ""),
        ("cannot open /home/somebody/build/lib.so", ""),
        ("tvm::relax::Normalize() failed", ""),
        ("word " * 200, ""),
        (PAGE, ""),
        ("", ""),
    ],
)
def test_first_line(said: str, shown: str):
    assert first_line(TypeError(said)) == (shown or "TypeError; --debug shows all of it.")


class Bilinear(nn.Module):
    """TVM has no such operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x)


def training_norm(path: Path) -> None:
    norm = helper.make_node("BatchNormalization", list("xsbmv"), ["y", "m2", "v2"], training_mode=1)
    ends = [helper.make_tensor_value_info(name, 1, [1, 4, 8, 8]) for name in "xy"]
    ones = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in "sbmv"]
    graph = helper.make_graph([norm], "graph", ends[:1], ends[1:], ones)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)


@pytest.mark.parametrize(
    ("file", "words"), [("norm.onnx", "BatchNormalization"), ("bilinear.pt2", "aten._trilinear")]
)
def test_a_refusal_is_one_line(command: Callable, tmp_path: Path, file: str, words: str):
    """TVM's builder warns of its own accord, past Python, when it goes with something begun in it."""
    training_norm(tmp_path / "norm.onnx")
    torch.export.save(torch.export.export(Bilinear().eval(), (torch.zeros(1, 4),)), tmp_path / "bilinear.pt2")
    done = command("compile", tmp_path / file, "--target", "host", "--out", tmp_path / "out")
    (sentence,) = done.stderr.splitlines()
    assert done.code == 2 and sentence.startswith("Error: ") and words in sentence


def test_a_page_of_the_compiler_stays_with_debug(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable, tmp_path: Path
):
    def fail(*args: Any, **options: Any) -> None:
        raise ValueError(PAGE)

    saved = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.Linear(4, 2).eval(), (torch.zeros(1, 4),)), saved)
    monkeypatch.setattr(relay_passes, "lower", fail)
    line = (saved, "--target", "host", "--out", tmp_path / "out")
    done = invoke("compile", *line)
    assert done.code == 1
    [sentence] = [text for text in done.stderr.splitlines() if text.startswith("Error")]
    assert "cannot be compiled for host: ValueError; --debug shows" in sentence
    for word in ("Traceback", "R.Tensor", "block_builder", "^^^"):
        assert word not in done.stderr
    with_debug = CliRunner().invoke(app, [*map(str, line), "--debug"])
    assert str(with_debug.exception.__cause__) == PAGE
