"""What all commands share."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from bibench_tvm.__main__ import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_framework(name: str) -> None:
    """`bibench X` is `python -m bibench_tvm.X`, and its help comes at once."""
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'tvm', 'onnx'))); "
        f"sys.argv = ['bibench', '{name}', '--help']; from bibench_tvm.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Usage: bibench {name} " in done.stdout and "--json" in done.stdout
    assert done.stderr == ""


def test_the_list_of_commands(command: Callable) -> None:
    done = command("__main__", "--help")
    assert done.code == 0 and all(name in done.stdout for name in COMMANDS)
    done = command("__main__", "compil")
    assert (done.code, done.stderr) == (2, "Error: There is no command 'compil'. Did you mean compile?\n")
    done = command("__main__")
    assert done.code == 2 and "Usage:" in done.stderr


def test_targets(invoke: Callable) -> None:
    done = invoke("targets", "--json")
    names = [target["name"] for target in done.json["targets"]]
    assert {"host", "arm_cpu", "armv7", "rpi3b+", "rpi4b", "rpi5", "kirin970", "apple-m1"} <= set(names)
    assert "rpi4b" in invoke("targets").stdout
