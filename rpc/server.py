"""A board: registers at a tracker, and runs the work of one client at a time in a child with a time limit.

TVM's own server ends when a child crashes, listens on every network and does not say what it is. This one
speaks the same protocol, so TVM's clients and tuners work with it unchanged.
"""

import contextlib
import fcntl
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tvm.rpc import _ffi_api
from tvm.rpc.base import RPC_CODE_MISMATCH, RPC_CODE_SUCCESS, RPC_MAGIC, random_key

from rpc import wire
from rpc.descendants import adopt_orphans, children, end_descendants, end_with_parent
from rpc.emulation.qemu import death_of
from rpc.wire import Address, Tracker, TrackerCode, TrackerGone

# Runs one session in a child: serves the client at a file descriptor, with the current folder for its files.
RunSession = Callable[[int], None]

_PING_S = 2.0
_UNUSED_KEY_S = 4.0
_GREETING_S = 5.0
_MAX_GREETINGS = 64
_MAX_KEY_BYTES = 1024
_KEPT_OUTPUT = 4096
_FOLDER = "bibench_board-"
_NEW_FOLDER_S = 60.0
_KEPT_FATES = 100


@dataclass
class _Greeting:
    """A connection that has not said yet whom it is for."""

    connection: socket.socket
    until: float
    data: bytearray = field(default_factory=bytearray)


@dataclass
class _Session:
    """A client whose work runs in the child `pid`, whose output is a pipe that ends with it.

    match_key: what the client had to know of the board.
    """

    match_key: str
    connection: socket.socket
    pid: int
    output: int
    folder: Path
    limit_s: float
    start: float
    until: float
    said: bytes = b""
    client_left: bool = False


class BoardServer:
    """`description` is what `rpc.session.list_boards` reads; `say` gets a line for each event."""

    def __init__(
        self,
        key: str,
        tracker: Address,
        listener: socket.socket,
        *,
        description: Mapping[str, Any],
        run_session: RunSession,
        time_limit_s: float,
        say: Callable[[str], None],
        stop: int | None = None,
    ):
        self._key = key
        self._tracker_address = tracker
        self._listener = listener
        self._port = listener.getsockname()[1]
        self._description = description
        self._run_session = run_session
        self._time_limit_s = time_limit_s
        self._say = say
        self._stop = stop
        self._tracker: Tracker | None = None
        self._tracker_missed = False
        self._match_key: str | None = None
        self._next_ping = 0.0
        self._unused_since: float | None = None
        self._greetings: dict[int, _Greeting] = {}
        self._session: _Session | None = None
        self._fates: dict[str, str] = {}  # of each session, by its match key: why it was lost, or nothing
        self._spared: set[int] = set()

    def serve(self) -> None:
        """Serves until it is interrupted, or until `stop` can be read; then nothing of it is left."""
        self._listener.setblocking(False)
        adopt_orphans()
        self._spared = children(os.getpid())
        with _own_folder() as folder:
            try:
                while self._step(folder):
                    pass
            finally:
                if self._session:
                    self._end_session(self._session, "The board was stopped.")
                for greeting in self._greetings.values():
                    greeting.connection.close()
                if self._tracker:
                    self._tracker.close()
                self._listener.close()

    def _step(self, folder: Path) -> bool:
        now = time.monotonic()
        if now >= self._next_ping:
            self._tell_tracker(now)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        if self._stop is not None:
            poll.register(self._stop, select.POLLIN)
        for descriptor in self._greetings:
            poll.register(descriptor, select.POLLIN)
        waits = [self._next_ping, *(greeting.until for greeting in self._greetings.values())]
        if session := self._session:
            poll.register(session.output, select.POLLIN)
            if not session.client_left:
                poll.register(session.connection, select.POLLRDHUP)
            waits.append(session.until)
        ready = dict(poll.poll(max(0.0, min(waits) - time.monotonic()) * 1000))
        now = time.monotonic()
        if self._stop in ready:
            return False
        if session:
            self._watch(session, ready, now)
        for descriptor, greeting in list(self._greetings.items()):
            if descriptor in ready:
                self._hear(greeting, folder)
            elif now >= greeting.until:
                self._dismiss(greeting)
        if self._listener.fileno() in ready:
            self._accept(now)
        return True

    def _tell_tracker(self, now: float) -> None:
        """Registers, says that one is still there, and gives the tracker a new key where one was not used."""
        try:
            if self._tracker is None:
                self._tracker = Tracker(self._tracker_address)
                self._match_key = None
                self._update_info()
                self._say(f"Registered at the tracker {wire.show(self._tracker_address)} as {self._key!r}.")
                self._tracker_missed = False
            elif self._match_key is not None:
                pending = self._tracker.ask([TrackerCode.GET_PENDING_MATCHKEYS])
                if not isinstance(pending, list):
                    raise TrackerGone("The tracker does not say which keys are pending.")
                if self._match_key in pending:
                    self._unused_since = None
                elif self._unused_since is None:
                    self._unused_since = now
                elif now - self._unused_since >= _UNUSED_KEY_S:
                    self._match_key = None  # its client has died on the way
            else:
                self._tracker.ask([TrackerCode.PING])
            if self._match_key is None and self._session is None:
                self._offer()
        except (TrackerGone, TimeoutError) as problem:
            self._lose_tracker(problem)
        self._next_ping = time.monotonic() + _PING_S

    def _lose_tracker(self, problem: Exception) -> None:
        if self._tracker:
            self._tracker.close()
        self._tracker = None
        if not self._tracker_missed:
            self._say(f"{str(problem) or 'The tracker does not answer.'} Trying again every {_PING_S:g} s.")
        self._tracker_missed = True

    def _update_info(self) -> None:
        assert self._tracker
        description = {**self._description, "free": self._session is None}
        # Null is the address from which the tracker sees the board.
        info = {"key": f"server:{self._key}", "addr": [None, self._port], "bibench": description}
        self._tracker.ask([TrackerCode.UPDATE_INFO, info])

    def _offer(self) -> None:
        assert self._tracker
        self._match_key = random_key(self._key)
        self._unused_since = None
        self._tracker.ask([TrackerCode.PUT, self._key, [self._port, self._match_key], None])

    def _accept(self, now: float) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if len(self._greetings) >= _MAX_GREETINGS:
                self._dismiss(next(iter(self._greetings.values())))  # the oldest: a client greets at once
            connection.setblocking(False)
            self._greetings[connection.fileno()] = _Greeting(connection, now + _GREETING_S)

    def _dismiss(self, greeting: _Greeting) -> None:
        del self._greetings[greeting.connection.fileno()]
        greeting.connection.close()

    def _hear(self, greeting: _Greeting, folder: Path) -> None:
        """Takes in a part of a greeting: TVM's magic number, a length and the key with options."""
        try:
            wanted = 8 + (struct.unpack_from("<i", greeting.data, 4)[0] if len(greeting.data) >= 8 else 0)
            part = greeting.connection.recv(wanted - len(greeting.data))
            greeting.data += part
            if not part or len(greeting.data) < 8:
                wrong = not part
            else:
                magic, size = struct.unpack_from("<ii", greeting.data)
                wrong = magic != RPC_MAGIC or not 0 < size <= _MAX_KEY_BYTES
        except BlockingIOError:
            return
        except OSError:
            wrong = True
        if wrong:
            self._dismiss(greeting)
        elif len(greeting.data) >= 8 and len(greeting.data) == 8 + size:
            self._answer(greeting, bytes(greeting.data[8:]).decode(errors="replace").split(), folder)

    def _answer(self, greeting: _Greeting, words: list[str], folder: Path) -> None:
        connection = greeting.connection
        asked = words[0].removeprefix("client:") if words else ""
        fate = self._fates.get(asked) if words[1:] == [wire.FATE] else None
        ours = self._match_key is not None and asked == self._match_key and words[1:] != [wire.FATE]
        said = (f"server:{self._key}" if ours else fate or "").encode()
        try:
            # So few bytes fit into what the system keeps for a connection: nobody is waited for.
            if ours or fate is not None:
                connection.sendall(struct.pack("<ii", RPC_CODE_SUCCESS, len(said)) + said)
            else:
                connection.sendall(struct.pack("<i", RPC_CODE_MISMATCH))
        except OSError:
            ours = False
        if not ours:
            self._dismiss(greeting)
            return
        del self._greetings[connection.fileno()]
        connection.settimeout(None)
        wire.prepare(connection)
        self._match_key = None
        self._start_session(asked, connection, _limit(words[1:], self._time_limit_s), folder)

    def _start_session(self, match_key: str, connection: socket.socket, limit_s: float, folder: Path) -> None:
        heard, output = os.pipe()
        start = time.monotonic()
        sys.stderr.flush()
        try:
            own_folder = Path(tempfile.mkdtemp(dir=folder))
            pid = os.fork()
        except OSError as problem:
            os.close(heard)
            os.close(output)
            self._keep_fate(match_key, f"The board cannot start a session: {wire.reason(problem)}.")
            _refuse(connection, self._fates[match_key])
            connection.close()
            self._say(f"A session could not be started: {wire.reason(problem)}.")
            self._next_ping = 0.0
            return
        if pid == 0:
            self._become_session(connection.fileno(), output, own_folder)
        os.close(output)
        self._session = _Session(
            match_key, connection, pid, heard, own_folder, limit_s, start, start + limit_s
        )
        self._keep_fate(match_key, "")
        self._tell_busy()

    def _become_session(self, connection: int, output: int, folder: Path) -> NoReturn:
        status = 1
        try:
            os.setsid()
            for number in signal.SIGTERM, signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
            end_with_parent()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # gigabytes, in the session's folder
            os.chdir(folder)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            self._listener.close()
            for greeting in self._greetings.values():
                greeting.connection.close()
            if self._tracker:
                self._tracker.close()
            os.set_inheritable(connection, True)
            self._run_session(connection)
            status = 0
        except BaseException as problem:
            os.write(2, f"{type(problem).__name__}: {problem}\n".encode(errors="replace"))
        finally:
            os._exit(status)

    def _watch(self, session: _Session, ready: Mapping[int, int], now: float) -> None:
        # The pipe stays open where the work has started a process that outlives it.
        ended = os.waitid(os.P_PID, session.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if session.output in ready:
            part = os.read(session.output, 1 << 16)
            session.said = (session.said + part)[-_KEPT_OUTPUT:]
            ended = ended or not part
        if ended:
            self._end_session(session, None)
        elif now >= session.until:
            what = "its client left" if session.client_left else f"its limit of {session.limit_s:g} s"
            self._end_session(session, f"The board ended the session after {what}.")
        elif session.connection.fileno() in ready and not session.client_left:
            # A child that is idle ends by itself; one in the middle of a kernel works for nobody.
            session.client_left = True
            session.until = min(session.until, now + 1)

    def _end_session(self, session: _Session, why_killed: str | None) -> None:
        if why_killed:
            os.kill(session.pid, signal.SIGKILL)  # it may be in another group by now
        _, status = os.waitpid(session.pid, 0)
        # Whatever the work has started ends with it: its group at once, and those that have left it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session.pid, signal.SIGKILL)
        end_descendants(self._spared)
        sentence = why_killed or _meaning(os.waitstatus_to_exitcode(status), session.said)
        # Before the connection is lost: a client in the middle of a call, to whom nothing can be said there
        # that it would understand, asks for it.
        self._keep_fate(session.match_key, sentence or "")
        if sentence and not session.client_left:
            _refuse(session.connection, sentence)
        session.connection.close()
        os.close(session.output)
        shutil.rmtree(session.folder, ignore_errors=True)
        self._session = None
        self._say(f"Session of {time.monotonic() - session.start:.1f} s. {sentence or ''}".rstrip())
        self._tell_busy()

    def _keep_fate(self, match_key: str, sentence: str) -> None:
        self._fates[match_key] = sentence
        if len(self._fates) > _KEPT_FATES:
            del self._fates[next(iter(self._fates))]

    def _tell_busy(self) -> None:
        """Tells the tracker of a session's beginning or end, and after the end offers the board again."""
        if self._tracker:
            try:
                self._update_info()
                if self._session is None:
                    self._offer()
            except (TrackerGone, TimeoutError) as problem:
                self._lose_tracker(problem)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A temporary folder, which is locked; first those go whose boards were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                if time.time() - os.fstat(handle).st_mtime < _NEW_FOLDER_S:
                    continue  # it may be about to be locked
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(handle)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(handle)


def _limit(options: list[str], longest_s: float) -> float:
    """What the client asks for, as far as the board allows it."""
    for option in options:
        with contextlib.suppress(ValueError):
            asked = float(option.removeprefix("-timeout="))
            if option.startswith("-timeout=") and asked > 0:
                return min(asked, longest_s)
    return longest_s


def _refuse(connection: socket.socket, sentence: str) -> None:
    """Tells a client that waits for an answer why there will be none; one that does not read is not told."""
    with contextlib.suppress(Exception):
        connection.setblocking(False)
        _ffi_api.ReturnException(connection.fileno(), sentence)


def _meaning(status: int, said: bytes) -> str | None:
    """What became of a child, of its exit status and its last words."""
    if status == 0:
        return None
    if status > 0:
        words = (said.decode(errors="replace").strip() or "it said nothing").splitlines()[-1]
        return f"The board's process ended with status {status}: {words}"
    return f"The board's process {death_of(-status)}"
