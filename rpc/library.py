"""A linked network, opened under a path that nothing was opened under before.

The loader knows a library by its path: what a process has once opened as build/model.so it gets again, though
another network lies there meanwhile. And what is written over while it is open ends the process.
"""

import contextlib
import itertools
import mmap
import os
import tempfile
import threading
from typing import IO, Any

import tvm_ffi

_openings = itertools.count(1)
# Held over a fork, so that the child finds it free.
_opening = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release
    )


class Library:
    """The content of a shared library, in a file of its own: in memory, where the system has such files, and
    else in the temporary folder, which must then admit programs (no `noexec`). The file goes with the object,
    also where the process is killed if it is in memory. Raises OSError where there is no room for it.
    """

    def __init__(self, content: bytes):
        self._module: Any = None
        self._in_memory = False
        file: IO[bytes] | None = None
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or forbidden there
            file = os.fdopen(os.memfd_create("model.so", os.MFD_CLOEXEC), "w+b")
            self._in_memory = os.path.exists(f"/proc/self/fd/{file.fileno()}")
        if file is None or not self._in_memory:
            file = tempfile.NamedTemporaryFile(prefix="bibench-", suffix=".so")  # noqa: SIM115
        self._file = file
        file.write(content)
        file.flush()

    def read(self) -> bytes:
        """The whole content."""
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content[:]

    def module(self) -> Any:
        """The library as TVM's module, opened at the first call. Raises what TVM and the loader raise."""
        with _opening:
            if self._module is None:
                # TVM's own `load_module` keeps every library for as long as the process lives.
                load = tvm_ffi.get_global_func("ffi.Module.load_from_file.so")
                self._module = load(self._path(), "so")
            return self._module

    def _path(self) -> str:
        if not self._in_memory:
            return self._file.name
        # The numbers of descriptors are used again. /. changes nothing but the path: the bits of a counter.
        bits = "".join("/." if bit == "1" else "/" for bit in f"{next(_openings):b}")
        return f"/proc/self/fd{bits}/{self._file.fileno()}"
