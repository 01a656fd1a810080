"""A private tracker and board on this machine, so that work without a board goes the same way."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from rpc import lean, tracker
from rpc.descendants import end_with_parent
from rpc.emulation.qemu import EmulationFailed
from rpc.listing import RemoteError, list_boards
from rpc.missing import EmulationUnavailable
from rpc.wire import LOCAL, Address, listen

KEY = "local"
_START_S = 60.0
_UNAVAILABLE = 3


@contextlib.contextmanager
def local_board(*, emulate: str | None = None, time_limit_s: float = 3600.0) -> Iterator[tuple[Address, str]]:
    """A tracker's address and the key of its one board: this machine, or an emulated `emulate` (cortex-a72).

    They end with the context, and also where this process is killed. Raises EmulationUnavailable or
    RemoteError where they cannot be started; the first start of an emulated board downloads and builds what
    it needs.
    """
    command = [sys.executable, "-m", "rpc.local_board", str(time_limit_s), *([emulate] if emulate else [])]
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile() as said:
        # It ends when its standard input does. In a session of its own, so that Ctrl-C leaves it to us.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        try:
            assert process.stdout
            line = process.stdout.readline()
            end = time.monotonic() + _START_S
            while line and not list_boards(tuple(json.loads(line))):
                if process.poll() is not None or time.monotonic() > end:
                    break
                time.sleep(0.05)
            else:
                if line:
                    yield tuple(json.loads(line)), KEY
                    return
            said.seek(0)
            words = (said.read().decode(errors="replace").strip() or "it said nothing").splitlines()[-1]
            if not line and process.wait(_START_S) == _UNAVAILABLE:
                raise EmulationUnavailable(words)
            raise RemoteError(f"The board of this machine did not start: {words}")
        finally:
            process.communicate()


def _main(time_limit_s: float, emulate: str | None = None) -> None:
    lean.import_tvm()
    from rpc.server import BoardServer

    if emulate:
        from rpc.emulation import emulated_board

        description, run_session = emulated_board.prepare(emulate)
    else:
        from rpc import machine, serve_session

        description, run_session = machine.describe(), serve_session.serve
    tracker_listener, listener = listen(LOCAL, 0), listen(LOCAL, 0)
    address = tracker_listener.getsockname()[:2]
    child = os.fork()
    if child == 0:
        _become_tracker(tracker_listener, listener)
    tracker_listener.close()
    try:
        print(json.dumps(address), flush=True)
        board = BoardServer(
            KEY,
            address,
            listener,
            description=description,
            run_session=run_session,
            time_limit_s=time_limit_s,
            say=lambda line: print(line, file=sys.stderr, flush=True),
            stop=sys.stdin.fileno(),
        )
        board.serve()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _become_tracker(listener: socket.socket, other: socket.socket) -> NoReturn:
    try:
        end_with_parent()
        other.close()
        tracker.serve(listener)
    finally:
        os._exit(1)


if __name__ == "__main__":
    try:
        _main(float(sys.argv[1]), *sys.argv[2:])
    except (EmulationUnavailable, EmulationFailed) as problem:
        print(problem, file=sys.stderr)
        sys.exit(_UNAVAILABLE if isinstance(problem, EmulationUnavailable) else 1)
