"""`python -m bibench_tvm.run ARTIFACT --input x.npy --output y.npy`: run a compiled network on this machine.

Imports neither torch nor onnx: it runs on a board.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bibench_tvm.console import print_json, reporting, stderr
from bibench_tvm.errors import BibenchError, UsageError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    artifact: Annotated[Path, typer.Argument(help="The folder that compile wrote.")],
    inputs: Annotated[list[Path], typer.Option("--input", help="A .npy file for each input, in order.")],
    outputs: Annotated[list[Path], typer.Option("--output", help="A .npy file for each output, in order.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output.")] = False,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Run an artifact on arrays from files."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.artifact import load

        compiled = load(artifact)
        expected = len(compiled.manifest["outputs"])
        if len(outputs) != expected:
            raise UsageError(f"The network has {expected} outputs; give --output so many times, not {len(outputs)}.")
        result = compiled.run(*[_read(path) for path in inputs])
        arrays = result if isinstance(result, tuple) else (result,)
        for path, array in zip(outputs, arrays):
            _write(path, array)
            stderr.print(f"{path}: {array.dtype} {array.shape}")
        if as_json:
            written = [
                {"path": str(p), "shape": list(a.shape), "dtype": str(a.dtype)} for p, a in zip(outputs, arrays)
            ]
            print_json({"artifact": str(artifact), "outputs": written})


def _read(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a .npy file of numbers: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path} holds several arrays; give each input a .npy file of its own.")
    return array


def _write(path: Path, array: np.ndarray) -> None:
    """The whole file or none."""
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array)
            os.chmod(scratch, 0o644)  # mkstemp keeps it to its owner
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        raise BibenchError(f"{path} cannot be written: {error.strerror or error}.") from error


if __name__ == "__main__":
    app(prog_name="python -m bibench_tvm.run")
