"""Objects -> a shared library for any ELF target, with no compiler and no system package."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence

from bibench_tvm.errors import BibenchError
from rpc.missing import sentence_of


def linker() -> list[str]:
    """The command of an LLVM linker: that of the `ziglang` package, or an `ld.lld` on the path."""
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "ld.lld"]
    if path := shutil.which("ld.lld"):
        return [path]
    raise BibenchError(str(sentence_of("ziglang")))


def link_shared(output: str, objects: Sequence[str], options: object = None) -> None:
    """For `export_library(fcompile=...)`. What kernels need of libm and the runtime, who loads them has."""
    command = [*linker(), "-shared", "-s", "-o", output, *objects]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BibenchError(
            f"The linker failed: {(done.stderr.strip() or 'it said nothing').splitlines()[-1]}"
        )
