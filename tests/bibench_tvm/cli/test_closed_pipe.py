"""Who closes standard output, as `head` does, is told nothing more."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["targets", "tracks table --paper", "tracks table --paper --json"])
def test_a_command_that_nobody_reads_ends_in_silence(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        line = [sys.executable, "-m", "bibench_tvm", *command.split()]
        done = subprocess.run(line, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert "rror" not in done.stderr and "Traceback" not in done.stderr
