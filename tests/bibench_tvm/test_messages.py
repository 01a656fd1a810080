"""What other programs say reaches a user as one short sentence, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
