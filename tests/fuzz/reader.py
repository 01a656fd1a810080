"""Reads files in a process of its own, and judges what became of each."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60.0
BYTES = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """output: what came on standard output and error."""

    accepted: bool
    output: str
    seconds: float
    peak: int
    ended: str = ""  # how the process ended, if it did

    def faults(self) -> list[str]:
        """What is wrong with what became of a file, in words."""
        faults = [self.ended] if self.ended else []
        if self.seconds > SECONDS:
            faults.append(f"it took {self.seconds:.0f} s")
        if self.peak > BYTES:
            faults.append(f"it took {self.peak / 2**20:.0f} MiB")
        for words in ("Traceback", "fault of the", 'File "', "terminate called"):
            if words in self.output:
                faults.append(f"it said {words!r}")
        sentences = [line for line in self.output.splitlines() if line.startswith("Error: ")]
        if not (self.ended or self.accepted or len(sentences) == 1):
            faults.append("it was refused without one sentence")
        return faults


class Reader:
    """A process that reads files, and is started anew where one ended it."""

    def __init__(self, *, compiling: bool = False, seconds: float = SECONDS):
        self._compiling, self._seconds = compiling, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *details: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            line = [sys.executable, "-m", "tests.fuzz.worker", *(["--compile"] if self._compiling else [])]
            here = Path(__file__).resolve().parents[2]
            environment = {**os.environ, "PYTHONPATH": str(here)}
            self._process = subprocess.Popen(
                line, cwd=here, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it has imported all that it needs
        return self._process

    def read(self, kind: str, path: Path) -> Outcome:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        start = time.monotonic()
        process.stdin.write(json.dumps([kind, str(path)]).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._seconds + 5)
        answer = process.stdout.readline() if ready else b""
        if answer:
            return Outcome(**json.loads(answer))
        took = time.monotonic() - start
        ended = f"it ended the process ({process.wait()})" if ready else "it hung"
        self._stop()
        return Outcome(False, "", took, 0, ended)
