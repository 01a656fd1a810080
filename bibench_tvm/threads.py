"""How many threads a network runs on. TVM has one pool of them for the whole process."""

from __future__ import annotations

import os

from bibench_tvm.errors import BibenchError, UsageError


def use_threads(count: int) -> None:
    """Run every network of this process on `count` threads from now on.

    The first use of the pool decides the most that it ever has. Raises UsageError for a count that is not of
    this machine, BibenchError where the pool was made smaller before.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= count <= processors:
        raise UsageError(f"{count} threads were asked for; from 1 to {processors} can run at a time here.")
    import tvm_ffi

    from rpc import machine

    machine.use_threads(count)
    made = tvm_ffi.get_global_func("runtime.NumThreads")()
    if made != count:
        raise BibenchError(
            f"{count} threads were asked for, and this process has {made}: say the number before the first "
            "run."
        )
