"""`python -m tests.fuzz.worker [--compile]`: the process that reads files, under a limit of memory."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from tests.fuzz.reader import Outcome

_HARD_LIMIT = 6 << 30  # for the machine's sake: beyond it an allocation fails


def work(*, compiling: bool) -> None:
    """Read the files that standard input names, one line of JSON for each."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    resource.setrlimit(resource.RLIMIT_DATA, (_HARD_LIMIT, _HARD_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as scratch:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        for module in ("compiling.compiler", "importer.from_onnx.translate", "importer.from_torch.translate"):
            importlib.import_module(f"bibench_tvm.{module}")

        answers.write(b"\n")
        for line in sys.stdin:
            kind, path = json.loads(line)
            output.seek(0)
            output.truncate()
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            start = time.monotonic()
            accepted = _read(kind, Path(path), Path(scratch) if compiling else None)
            seconds = time.monotonic() - start
            sys.stdout.flush()
            sys.stderr.flush()
            output.seek(0)
            outcome = Outcome(accepted, output.read().decode(errors="replace"), seconds, _peak())
            answers.write(json.dumps(vars(outcome)).encode() + b"\n")


def _peak() -> int:
    """Bytes."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _read(kind: str, path: Path, out: Path | None) -> bool:
    """Whether it is a network, as a command tells; out: compile it into this folder."""
    import typer

    from bibench_tvm.cli.console import reporting

    try:
        with reporting(as_json=False, debug=False):
            if kind == "npy":
                from bibench_tvm.cli.arrays import read_array, read_samples

                (read_samples if zipfile.is_zipfile(path) else read_array)(path)
            elif kind == "manifest":
                _run_artifact(path)
            else:
                from bibench_tvm import compile_model
                from bibench_tvm.importer import import_model

                shapes: dict[str | None, tuple[int, ...]] = {}
                for again in (True, False):
                    try:
                        if out is not None:
                            compile_model(path, out=out, input_shapes=shapes)
                        else:
                            import_model(path, input_shapes=shapes)
                        break
                    except ValueError as error:
                        if not again or "--input-shape" not in str(error):
                            raise
                        shapes = {None: (4, 8)}
    except typer.Exit:
        return False
    return True


def _run_artifact(folder: Path) -> None:
    """What `run` and `bench` do with a manifest, but for the board."""
    from bibench_tvm.artifact.artifact import load
    from bibench_tvm.measuring.measure import sample_inputs

    artifact = load(folder)
    artifact.run(*sample_inputs(artifact.record, None))


if __name__ == "__main__":
    work(compiling="--compile" in sys.argv[1:])
