"""How many threads a network runs on. TVM has one pool of them for the whole process."""

from __future__ import annotations

from bibench_tvm.errors import BibenchError, UsageError


def use_threads(count: int) -> None:
    """Run every network of this process on `count` threads from now on.

    The first use of the pool decides the most that it ever has. Raises UsageError for a count that is not of
    this machine, BibenchError where the pool was made smaller before.
    """
    import tvm_ffi

    from rpc import machine

    most = machine.processors()
    if not 1 <= count <= most:
        raise UsageError(f"{count} threads were asked for; from 1 to {most} can run at a time here.")
    machine.use_threads(count)
    made = tvm_ffi.get_global_func("runtime.NumThreads")()
    if made != count:
        raise BibenchError(
            f"{count} threads were asked for, and this process has {made}: say the number before the first "
            "run."
        )
