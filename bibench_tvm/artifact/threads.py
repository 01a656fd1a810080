"""How many threads a network runs on, and where they are.

TVM has a pool of threads for each thread that runs a network on several, and never ends one. After a fork
the child has the pool of the thread that forked, without its threads: it would wait for them when it runs a
network, or when it exits. So networks on several threads run in one thread of ours, which no child has; those
on one thread need no pool, and run where they are called.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from bibench_tvm.cli.errors import BibenchError, UsageError

Result = TypeVar("Result")

_turn = threading.Lock()
_wanted: int | None = None
_runner: _Runner | None = None


def _forget_runner() -> None:
    global _turn, _runner
    _turn, _runner = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_runner)


def use_threads(count: int) -> None:
    """Run every network of this process on `count` threads from now on.

    Raises UsageError for a count that is not of this machine, BibenchError where TVM does not make so many.
    """
    global _wanted, _runner
    from rpc import machine

    most = machine.processors()
    if not 1 <= count <= most:
        raise UsageError(f"{count} threads were asked for; from 1 to {most} can run at a time here.")
    with _turn:
        if count != _wanted and _runner is not None:
            _runner.end()
            _runner = None
        _wanted = count
        os.environ["TVM_NUM_THREADS"] = str(count)


def run_where_threads_are(work: Callable[[], Result]) -> Result:
    """Call `work`, which runs a network. Where that takes several threads, callers take turns."""
    global _runner
    # What TVM reads: where it is 1, a network runs without a pool.
    count = os.environ.get("TVM_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    if not count:
        from rpc import machine

        machine.settle_threads()
        count = os.environ["TVM_NUM_THREADS"]
    if count == "1":
        return work()
    with _turn:
        if _runner is None:
            _runner = _Runner()
            if _wanted is not None:
                _runner.call(lambda: _make_pool(_wanted))
        return _runner.call(work)


def _make_pool(count: int) -> None:
    """Give the thread that calls this a pool of so many threads, on the fastest cores."""
    import tvm_ffi

    from rpc import machine

    machine.use_threads(count)
    os.environ["TVM_NUM_THREADS"] = str(count)
    made = tvm_ffi.get_global_func("runtime.NumThreads")()
    if made != count:
        raise BibenchError(f"{count} threads were asked for, and TVM makes {made} on this machine.")


class _Runner:
    """A thread that calls what it is given, one after the other."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="bibench", daemon=True).start()

    def call(self, work: Callable[[], Result]) -> Result:
        reply: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._tasks.put((work, reply))
        result, error = reply.get()
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        self._tasks.put(None)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            work, reply = task
            try:
                reply.put((work(), None))
            except BaseException as error:
                reply.put((None, error))
            del task, work, reply
