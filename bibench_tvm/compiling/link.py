"""Compiled code -> a shared library for any ELF target, with no compiler and no system package."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bibench_tvm.cli.errors import BibenchError
from rpc.missing import sentence_of

# What TVM calls the objects that it exports: the code, and the constants.
_OBJECTS = ("lib0.o", "devc.o")


def linker() -> list[str]:
    """The command of an LLVM linker: that of the `ziglang` package, or an `ld.lld` on the path."""
    return _tool("ld.lld", "ld.lld")


def _tool(ziglang: str, elsewhere: str) -> list[str]:
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", ziglang]
    if path := shutil.which(elsewhere):
        return [path]
    raise BibenchError(str(sentence_of("ziglang")))


def export(executable: Any, library: Path) -> None:
    """Write what `tvm.compile` gave as a shared library. Raises BibenchError, also where the disk is full."""
    _refuse_small_files(executable.mod)
    try:
        with _objects_in_memory(library.parent) as folder:
            executable.export_library(str(library), fcompile=link_shared, workspace_dir=folder)
    except OSError as error:
        raise BibenchError(f"{library.parent} cannot be written: {error.strerror or error}.") from error


# What the runtime looks up in a library: kernels and constants, and its own functions, which it sets.
_EXPORTED = "{ global: __tvm_ffi_*; __TVM*; local: *; };"
# Nothing that a kernel calls throws; where it is called from, an error is a number.
_LEFT_OUT = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.comment) } } INSERT AFTER .text;"


def link_shared(output: str, objects: Sequence[str], options: object = None) -> None:
    """For `export_library(fcompile=...)`. What kernels need of libm and the runtime, who loads them has; what
    neither they nor the runtime use is left out. Pages may have up to 64 KB, as LLVM has it for Arm."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(output) or ".") as folder:
        # Where the linker runs, another path than an absolute one would lead elsewhere.
        exported, left_out = Path(folder, "exported").absolute(), Path(folder, "left_out").absolute()
        exported.write_text(_EXPORTED)
        left_out.write_text(_LEFT_OUT)
        flags = ["-s", "--hash-style=gnu", "--gc-sections", f"--version-script={exported}", str(left_out)]
        _run([*linker(), "-shared", *flags], Path(output), objects)


def assemble(text: Path, output: Path) -> str:
    """LLVM's text -> a relocatable object, for the target that the text names; nothing is optimised.

    Returns what LLVM says meanwhile. Raises BibenchError.
    """
    from tvm.runtime import load_module

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    _refuse_more(text.stat().st_size, limit)
    try:
        module = load_module(str(text))
        with _objects_in_memory(output.parent) as folder:
            made = os.path.join(folder, _OBJECTS[0])
            with _standard_error(Path(folder, "said")) as said:
                module.write_to_file(made, "o")
            flags = ["--strip-debug", "--discard-all"]
            _run([*linker(), "-r", *flags], output, [made])
            return said.read_text(errors="replace")
    except OSError as error:
        raise BibenchError(f"{output.parent} cannot be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def _standard_error(file: Path) -> Iterator[Path]:
    """Let what this process writes to standard error go to a file: LLVM has no other way to say anything."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(file, "wb") as to:
            os.dup2(to.fileno(), 2)
        yield file
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def archive(output: Path, made: Path) -> None:
    """A static library of one object. Raises BibenchError."""
    _run([*_tool("ar", "llvm-ar"), "rcsD"], output, [made], flag=())


def link_library(output: Path, made: Path) -> None:
    """A shared library of one object, which needs no other. Raises BibenchError."""
    flags = ["-shared", "-s", "-soname", output.name, "-z", "now"]
    _run([*linker(), *flags], output, [made])


def _run(
    command: Sequence[str], output: Path, objects: Sequence[str | Path], flag: Sequence[str] = ("-o",)
) -> None:
    """Run it in the folder of the output, which it is given by its name alone: a linker takes a % in a path
    for more than a sign."""
    line = [*command, *flag, output.name, *(os.path.abspath(made) for made in objects)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=output.parent)
    if not done.returncode:
        return
    # A linker that writes to memory is told by a signal that the file behind it may not grow.
    if "No space left" in done.stderr or -done.returncode in (signal.SIGBUS, signal.SIGXFSZ):
        raise BibenchError(
            f"The disk of {output.parent} is full, or files there are limited in size: the network "
            "could not be linked."
        )
    words = (done.stderr.strip() or "it said nothing").splitlines()
    raise BibenchError(f"The linker failed: {words[0]}")


@contextlib.contextmanager
def _objects_in_memory(beside: Path) -> Iterator[str]:
    """A folder for TVM's objects, which are links to files in memory, where the system has them: LLVM ends
    the whole process where it cannot write a file."""
    with tempfile.TemporaryDirectory(dir=beside) as folder, contextlib.ExitStack() as stack:
        with contextlib.suppress(AttributeError, PermissionError):  # not Linux; FAT, which has no links
            for name in _OBJECTS:
                file = stack.enter_context(os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC), "wb"))
                os.symlink(f"/proc/{os.getpid()}/fd/{file.fileno()}", os.path.join(folder, name))
        yield folder


def _refuse_small_files(module: Any) -> None:
    """A limit on files (`ulimit -f`) is one on those in memory, too. How long the objects are is known when
    they are written; code is shorter than as assembly, and constants than as C, four times."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return
    from tvm.runtime import _ffi_api

    code = sum(len(part.inspect_source("s")) for part in module._collect_dso_modules())
    constants = len(_ffi_api.ModulePackImportsToC(module, False, "")) // 4 if module.imports else 0
    _refuse_more(max(code, constants), limit)


def _refuse_more(size: int, limit: int) -> None:
    if resource.RLIM_INFINITY != limit < size:
        raise BibenchError(
            f"This process may write files of {limit:,} bytes (ulimit -f), and the network may take {size:,}."
        )
