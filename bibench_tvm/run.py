"""`python -m bibench_tvm.run ARTIFACT --input x.npy --output y.npy`: run a compiled network.

With `--board KEY --tracker HOST:PORT` it runs there, otherwise on this machine.

Imports neither torch nor onnx: it runs on a board.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bibench_tvm.artifact.threads import use_threads
from bibench_tvm.cli.arrays import read_array
from bibench_tvm.cli.console import (
    MOST_THREADS,
    AsJson,
    Debug,
    Tracker,
    Wait,
    print_json,
    refuse_tracker_alone,
    reporting,
    run_command,
    stderr,
)
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.overwriting import refuse_overwriting
from bibench_tvm.cli.whole_file import whole_file

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    artifact: Annotated[Path, typer.Argument(help="The folder that compile wrote.")],
    inputs: Annotated[list[Path], typer.Option("--input", help="A .npy file; again for each further input.")],
    outputs: Annotated[
        list[Path], typer.Option("--output", help="A .npy file; again for each further output.")
    ],
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_THREADS, help="How many threads to run on; left out, the first runs find out."
        ),
    ] = None,
    board: Annotated[
        str, typer.Option(help="A board to run it on: KEY at --tracker, adb:SERIAL or ssh:HOST.")
    ] = "",
    tracker: Tracker = "",
    wait: Wait = 60,
    limit: Annotated[float, typer.Option(min=0.1, max=604800, help="Seconds that the board may take.")] = 600,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run an artifact on arrays from files, on this machine or on a board."""
    with reporting(as_json=as_json, debug=debug):
        refuse_tracker_alone(tracker, board)
        from rpc import lean

        lean.import_tvm(compiler=True)  # it says what this processor has
        from bibench_tvm.artifact.artifact import Artifact, load
        from bibench_tvm.detection.detector import OUTPUTS, Detector, is_detector, load_detector

        if threads is not None and not board:
            use_threads(threads)
        compiled: Artifact | Detector
        if is_detector(artifact):
            compiled, names = load_detector(artifact), list(OUTPUTS)
        else:
            compiled = load(artifact)
            names = [spec["name"] for spec in compiled.manifest["outputs"]]
        if len(outputs) != len(names):
            raise UsageError(
                f"The network's outputs are {', '.join(names)}: give --output {len(names)} times, and not "
                f"{len(outputs)} times."
            )
        refuse_overwriting(outputs, [*inputs, *compiled.files()])
        arrays = [read_array(path) for path in inputs]
        if is_detector(artifact) and len(arrays) != 1:
            raise UsageError(
                f"A detector has one input, the images, and not {len(arrays)}: give --input once."
            )
        where: dict[str, Any] = {}
        if board:
            from rpc.any_board import any_board
            from rpc.listing import RemoteError
            from rpc.wire import tracker_address

            try:
                with any_board(tracker_address(tracker), board, wait_s=wait, limit_s=limit) as ours:
                    where = {"board": ours.info.key, "emulated": ours.info.emulated}
                    stderr.print(f"Running on {ours}.", soft_wrap=True)
                    if threads is not None:
                        ours.use_threads(threads)
                    result = compiled.run_on(ours, *arrays)
            except RemoteError as error:
                raise BibenchError(str(error)) from error
        else:
            result = compiled.run(*arrays)
        written = []
        for path, array in zip(outputs, result if isinstance(result, tuple) else [result], strict=True):
            with whole_file(path) as file:
                np.save(file, array)
            stderr.print(f"{path}: {array.dtype} {array.shape}")
            written.append({"path": str(path), "shape": list(array.shape), "dtype": str(array.dtype)})
        if as_json:
            print_json({"artifact": str(artifact), **where, "outputs": written})


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.run")
