"""Compiles candidates in a process of its own: one that the compiler hangs or crashes on costs one trial.

As a program (`python -m bibench_tvm.tuning.builder`) it is that process: a line of JSON in for each kernel,
a line out.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from bibench_tvm.tuning.inner_loop import COUNTED, cycles_per_instruction
from schedules.records.kernel_task import Work

BUILD_LIMIT_S = 120.0


class BuildFailed(Exception):
    """The candidate does not compile; the message says how, in one line."""


class Builder:
    """cpu: the core whose cycles are modelled for each kernel, or empty."""

    def __init__(self, target: tvm.target.Target, cpu: str, limit_s: float, scratch: str):
        self._target, self._cpu, self._limit_s = json.loads(str(target)), cpu, limit_s
        self._scratch = scratch  # what a compiler leaves there that is killed goes with ours
        self._process: subprocess.Popen[bytes] | None = None

    def build(self, kernel: tirx.PrimFunc, library: Path, work: Work) -> float:
        """Write `library`, a .so or a .o, with a function of the name that the file has. Returns modelled
        cycles an instruction of the loop that does most of this work, or 1.

        Raises BuildFailed.
        """
        named = kernel.with_attr("global_symbol", library.stem)
        question = {
            "kernel": tvm.ir.save_json(tvm.IRModule({library.stem: named})),
            "target": self._target,
            "library": str(library),
            "cpu": self._cpu,
            "work": work,
        }
        answer = self._ask(json.dumps(question).encode() + b"\n")
        if answer["error"]:
            raise BuildFailed(f"It does not compile: {answer['error']}")
        return float(answer["cycles_per_instruction"])

    def _ask(self, question: bytes) -> dict[str, Any]:
        if self._process is None:
            line = [sys.executable, "-m", "bibench_tvm.tuning.builder"]
            # In a session of its own, so that Ctrl-C leaves it to us.
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "TMPDIR": self._scratch},
            )
        process, answer = self._process, b""
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(question)
            process.stdin.flush()
        end = time.monotonic() + self._limit_s
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.close()
                raise BuildFailed(f"The compiler did not end within {self._limit_s:g} seconds.")
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                self.close()
                raise BuildFailed("The compiler crashed.")
            answer += part
        return json.loads(answer)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextlib.contextmanager
def builder(target: tvm.target.Target, cpu: str = "", limit_s: float = BUILD_LIMIT_S) -> Iterator[Builder]:
    with tempfile.TemporaryDirectory(prefix="bibench_tune-") as scratch:
        made = Builder(target, cpu, limit_s, scratch)
        try:
            yield made
        finally:
            made.close()


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from bibench_tvm.compiling.link import link_shared
    from schedules.codegen import generate_code

    with tempfile.TemporaryDirectory() as folder:
        library = Path(question["library"])
        compiled = library if library.suffix == ".o" else Path(folder) / "kernel.o"
        target = tvm.target.Target(question["target"])
        executable = generate_code(tvm.ir.load_json(question["kernel"]), target)
        executable.mod.write_to_file(str(compiled), "o")
        if compiled != library:
            link_shared(str(library), [str(compiled)])
        if not question["cpu"]:
            return {"error": "", "cycles_per_instruction": 1.0}
        work: Work = question["work"]
        found = cycles_per_instruction(compiled.read_bytes(), question["cpu"], COUNTED[work])
        return {"error": "", "cycles_per_instruction": found}


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the compiler prints is no answer
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line))
        except Exception as error:  # the compiler raises what it likes
            words = (str(error).strip() or type(error).__name__).splitlines()
            answer = {"error": words[-1][:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
