"""How many threads a network runs on, and where they are.

TVM has a pool of threads for each thread that runs a network on several, and never ends one. After a fork
the child has the pool of the thread that forked, without its threads: it would wait for them when it runs a
network, or when it exits. So networks on several threads run in one thread of ours, which no child has; those
on one thread need no pool, and run where they are called. How many they are is set in the thread that runs
the network, and not in the environment: two networks of one process may differ.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from bibench_tvm.cli.errors import BibenchError, UsageError, refuse_no_count

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
    global _wanted
    from rpc import machine

    refuse_no_count(count, "The number of threads")
    most = machine.processors()
    if not 1 <= count <= most:
        raise UsageError(f"{count} threads were asked for; from 1 to {most} can run at a time here.")
    _wanted = count
    os.environ["TVM_NUM_THREADS"] = str(count)  # for the processes that this one starts


def said() -> int | None:
    """How many threads this process was told to run networks on, by `use_threads` or by the environment."""
    if _wanted is not None:
        return _wanted
    text = os.environ.get("TVM_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    if not text:
        return None
    digits = re.split(r"\D", text.strip(), maxsplit=1)[0]  # as TVM reads it: "4,2" is 4, and nonsense 1
    return max(1, int(digits or 1))


def run_where_threads_are(work: Callable[[], Result]) -> Result:
    """Call `work`, which runs a network, on as many threads as were said, else on one for each fast core."""
    from rpc import machine

    return run_on(said() or machine.fast_cores(), work)


def run_on(count: int, work: Callable[[], Result]) -> Result:
    """Call `work`, which runs a network, on so many threads: what was said, or 1, or `fast_cores`.

    Where they are several, callers take turns.
    """
    global _runner
    if count == 1:
        return _alone(work)
    with _turn:
        if _runner is None:
            _runner = _Runner()
        if _runner.threads != count:
            _runner.call(lambda: _make_pool(count))
            _runner.threads = count
        return _runner.call(work)


def _alone(work: Callable[[], Result]) -> Result:
    """On the thread that calls this, without a pool."""
    from rpc import machine

    machine.limit_threads(1)
    try:
        return work()
    finally:
        machine.limit_threads(0)


def _make_pool(count: int) -> None:
    """Give the thread that calls this a pool of so many threads, on the fastest cores."""
    from rpc import machine

    made = machine.make_pool(count)
    if made != count and count == _wanted:
        raise BibenchError(f"{count} threads were asked for, and TVM makes {made} on this machine.")


class _Runner:
    """A thread that calls what it is given, one after the other. threads: in its pool."""

    def __init__(self) -> None:
        self.threads = 0
        self._tasks: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="bibench", daemon=True).start()

    def call(self, work: Callable[[], Result]) -> Result:
        reply: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._tasks.put((work, reply))
        result, error = reply.get()
        if error is not None:
            raise error
        return result

    def _serve(self) -> None:
        while True:
            work, reply = self._tasks.get()
            try:
                reply.put((work(), None))
            except BaseException as error:
                reply.put((None, error))
            del work, reply
