"""What is wrong with an emulator, as the sentence that a command ends with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bibench_tvm.cli.errors import BibenchError


@contextlib.contextmanager
def emulating() -> Iterator[None]:
    """Raises BibenchError where nothing can be emulated, or a program ended there."""
    from rpc.emulation.qemu import EmulationFailed
    from rpc.missing import EmulationUnavailable

    try:
        yield
    except (EmulationUnavailable, EmulationFailed) as problem:
        raise BibenchError(str(problem)) from None
