"""Compile binarized networks to bit-serial code for Arm boards, and verify them.

from bibench_tvm import compile_model, load
artifact = compile_model(model, example_inputs, target="rpi4b", out="build/")
y = load("build/").run(x)
"""

from typing import Any

__all__ = ["BibenchError", "compile_model", "load"]


def __getattr__(name: str) -> Any:
    """Import late: `load` works on a board, which has neither torch nor onnx."""
    if name == "compile_model":
        from bibench_tvm.compiling.compiler import compile_model

        return compile_model
    if name == "load":
        from bibench_tvm.artifact.artifact import load

        return load
    if name == "BibenchError":
        from bibench_tvm.cli.errors import BibenchError

        return BibenchError
    raise AttributeError(f"module 'bibench_tvm' has no attribute {name!r}")
