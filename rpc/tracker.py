"""The tracker: boards register, clients ask for one, and it hands them out in the order of asking.

It speaks the protocol of TVM's own tracker, so TVM's clients, servers and tuners work with it. That one
believes what it is told: one connection that speaks nonsense takes it from everybody. Here what a connection
says is checked and bounded, and answered with FAIL and a sentence where it makes no sense. Needs no TVM.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import resource
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from rpc.wire import FAIL, SUCCESS, TRACKER_MAGIC, TrackerCode, prepare

# TVM's trackers take 1 MiB. What is longer than a message here may be is passed over as it arrives.
_MAX_FRAME, _MAX_MESSAGE = 1 << 20, 1 << 14
_MAX_TEXT = 128
# With the bound of connections this lists every board that says less than 1 kB of itself.
_MAX_INFO, _MAX_SUMMARY = 1 << 12, 1 << 20
_MAX_DEPTH = 16
_MAX_CONNECTIONS = 1000
_MAX_OFFERS = 16  # of one connection, not handed out yet
_MAX_REQUESTS = 64  # of one connection, not served yet
_MAX_UNREAD = 32  # connections that have not taken their answer yet
_MESSAGE_S = 10.0  # for a greeting, a message that has begun, and an answer to be taken
_SILENT_S = 10.0  # boards of ours say something every 2 s
_OTHER_FILES = 32
_received = bytearray(1 << 12)  # one after the other: a connection takes its part out at once


class _Nonsense(ValueError):
    """What a connection says cannot be meant; the message says why."""


@dataclass(eq=False, slots=True)
class _Offer:
    """A board that is free: where it is, and the key with which it takes one client."""

    board: "_Connection"
    key: str
    host: str
    port: int
    match_key: str


@dataclass(eq=False, slots=True)
class _Request:
    """A connection that waits for a board with a key."""

    client: "_Connection"
    key: str
    priority: int


class _Queue:
    """Of one key: boards in the order of their offers; requests by priority, in the order of asking."""

    def __init__(self) -> None:
        self.offers: OrderedDict[_Offer, None] = OrderedDict()
        self.requests: dict[int, OrderedDict[_Request, None]] = {}

    def add(self, request: _Request) -> None:
        self.requests.setdefault(request.priority, OrderedDict())[request] = None

    def remove(self, request: _Request) -> None:
        alike = self.requests[request.priority]
        del alike[request]
        if not alike:
            del self.requests[request.priority]

    def first(self) -> _Request:
        return next(iter(self.requests[max(self.requests)]))

    def sizes(self) -> dict[str, int]:
        return {"free": len(self.offers), "pending": sum(map(len, self.requests.values()))}


_NOBODY = _Queue()


class _Connection(asyncio.BufferedProtocol):
    """Serves one message at a time, in turns with the others, and reads on when its answer was taken."""

    def __init__(self, tracker: "_Tracker"):
        self._tracker = tracker
        self.transport: asyncio.Transport | None = None
        self.host = ""
        self.info: dict[str, Any] = {}
        self.said = b""  # the same as JSON
        self.offers: dict[str, _Offer] = {}
        self.requests: set[_Request] = set()
        self.since = self.heard = 0.0
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._greeted = False
        self._to_skip = 0
        self._unread = False  # its answer, by the other side
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        self.host = str((transport.get_extra_info("peername") or [""])[0])
        with contextlib.suppress(OSError):
            prepare(transport.get_extra_info("socket"))
        self.since = self.heard = self._loop.time()
        self._hurry()
        self._tracker.connections.add(self)
        self._tracker.make_room(self)

    def connection_lost(self, problem: Exception | None) -> None:
        self.transport = None
        self._relax()
        self._tracker.forget(self)

    def close(self) -> None:
        if self.transport:
            self.transport.abort()

    def get_buffer(self, size_hint: int) -> bytearray:
        return _received

    def buffer_updated(self, size: int) -> None:
        assert self.transport
        self.heard = self._loop.time()
        self._input += _received[:size]
        self.transport.pause_reading()
        self._serve()

    def pause_writing(self) -> None:
        self._unread = True
        self._hurry()
        self._tracker.wait_for(self)

    def resume_writing(self) -> None:
        self._unread = False
        self._relax()
        self._tracker.unread.pop(self, None)
        self._loop.call_soon(self._serve)

    @property
    def matters(self) -> bool:
        """Whether it is a board, or waits for one."""
        return bool(self.info or self.offers or self.requests)

    def answer(self, value: Any) -> None:
        self.send(json.dumps(value).encode())

    def send(self, text: bytes) -> None:
        if self.transport and not self.transport.is_closing():
            self.transport.write(struct.pack("<i", len(text)) + text)

    def _hurry(self) -> None:
        """From now on it has some seconds for what it is about."""
        self._relax()
        self._deadline = self._loop.call_later(_MESSAGE_S, self.close)

    def _relax(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = None

    def _serve(self) -> None:
        """Serves one message, where one has arrived whole, and else reads on."""
        if self._unread or not self.transport or self.transport.is_closing():
            return
        message = self._next()
        if message is not None:
            self._relax()
            if message:
                self._tracker.serve(self, message)
            else:
                self.answer([FAIL, f"A message here has {_MAX_MESSAGE} bytes at most."])
            if not self._unread:
                self._loop.call_soon(self._serve)
        elif not self.transport.is_closing():
            if self._deadline is None and (self._input or self._to_skip):
                self._hurry()  # a part of a message may not stay one
            self.transport.resume_reading()

    def _next(self) -> bytes | None:
        """A whole message; one of no bytes stands for one that is too long; None while it is not whole."""
        skipped = min(self._to_skip, len(self._input))
        del self._input[:skipped]
        self._to_skip -= skipped
        if skipped and not self._to_skip:
            return b""
        if self._to_skip or len(self._input) < 4:
            return None
        (size,) = struct.unpack_from("<i", self._input)
        if not self._greeted:
            if size != TRACKER_MAGIC:
                self.close()
                return None
            del self._input[:4]
            self._greeted = True
            self._relax()
            assert self.transport
            self.transport.write(struct.pack("<i", TRACKER_MAGIC))
            return self._next()
        if not 0 < size <= _MAX_FRAME:
            self.close()
        elif size > _MAX_MESSAGE:
            del self._input[:4]
            self._to_skip = size
            return self._next()
        elif len(self._input) >= 4 + size:
            message = bytes(self._input[4 : 4 + size])
            del self._input[: 4 + size]
            return message
        return None


class _Tracker:
    def __init__(self, most: int) -> None:
        self._most = most
        self.connections: set[_Connection] = set()
        self.unread: dict[_Connection, None] = {}
        self._queues: dict[str, _Queue] = {}
        self._summary: bytes | None = None

    def make_room(self, newcomer: _Connection) -> None:
        """Where there are too many, one goes: first those that are nothing here, then boards and those who
        wait for one, the longest silent first; and of boards that speak, the last that came, so that a flood
        of them takes nobody's place who was there before."""
        if len(self.connections) > self._most:
            now = newcomer.heard

            def worth(connection: _Connection) -> tuple[bool, bool, float]:
                lively = connection.matters and now - connection.heard < _SILENT_S
                return connection.matters, lively, -connection.since if lively else connection.heard

            least = min(self.connections - {newcomer}, key=worth)
            self.connections.discard(least)
            least.close()

    def wait_for(self, connection: _Connection) -> None:
        """Until it has read its answer, of which it holds a copy here: not too many of them."""
        self.unread[connection] = None
        if len(self.unread) > _MAX_UNREAD:
            longest = next(iter(self.unread))
            del self.unread[longest]
            longest.close()

    def forget(self, connection: _Connection) -> None:
        if connection.matters:
            self._summary = None
        self.connections.discard(connection)
        self.unread.pop(connection, None)
        for offer in connection.offers.values():
            del self._queues[offer.key].offers[offer]
            self._tidy(offer.key)
        for request in connection.requests:
            self._queues[request.key].remove(request)
            self._tidy(request.key)

    def serve(self, connection: _Connection, message: bytes) -> None:
        try:
            try:
                words = json.loads(message)
            except (ValueError, RecursionError):
                raise _Nonsense("This is not JSON.") from None
            if not isinstance(words, list) or not words or type(words[0]) is not int:
                raise _Nonsense("A message is a list that begins with its code.")
            code, *words = words
            if code == TrackerCode.PING:
                connection.answer(SUCCESS)
            elif code == TrackerCode.PUT:
                self._put(connection, *_fields(words, 2, 3))
            elif code == TrackerCode.REQUEST:
                self._request(connection, *_fields(words, 3, 3))
            elif code == TrackerCode.UPDATE_INFO:
                self._update(connection, *_fields(words, 1, 1))
            elif code == TrackerCode.SUMMARY:
                connection.send(self._summarize())
            elif code == TrackerCode.GET_PENDING_MATCHKEYS:
                connection.answer(list(connection.offers))
            else:
                raise _Nonsense("There is no such code.")
        except _Nonsense as problem:
            connection.answer([FAIL, str(problem)])

    def _put(self, board: _Connection, key: Any, where: Any, host: Any = None) -> None:
        if not isinstance(where, list) or len(where) != 2:
            raise _Nonsense("A board says its port and its match key.")
        host = board.host if host is None else _text(host, "an address")
        offer = _Offer(board, _text(key, "a key"), host, _port(where[0]), _text(where[1], "a match key"))
        if len(board.offers) >= _MAX_OFFERS or offer.match_key in board.offers:
            raise _Nonsense("This board has offered itself already.")
        self._summary = None
        board.offers[offer.match_key] = offer
        self._queues.setdefault(offer.key, _Queue()).offers[offer] = None
        board.answer(SUCCESS)
        self._match(offer.key)

    def _request(self, client: _Connection, key: Any, _user: Any, priority: Any) -> None:
        if type(priority) is not int or not -(1 << 31) <= priority < 1 << 31:
            raise _Nonsense("A priority is an integer of 32 bits.")
        if len(client.requests) >= _MAX_REQUESTS:
            raise _Nonsense(f"One connection waits for {_MAX_REQUESTS} boards at most.")
        request = _Request(client, _text(key, "a key"), priority)
        self._summary = None
        client.requests.add(request)
        self._queues.setdefault(request.key, _Queue()).add(request)
        self._match(request.key)

    def _match(self, key: str) -> None:
        queue = self._queues[key]
        while queue.offers and queue.requests:
            (offer, _), request = queue.offers.popitem(last=False), queue.first()
            queue.remove(request)
            del offer.board.offers[offer.match_key]
            request.client.requests.discard(request)
            request.client.answer([SUCCESS, [offer.host, offer.port, offer.match_key]])
        self._tidy(key)

    def _tidy(self, key: str) -> None:
        queue = self._queues.get(key)
        if queue and not queue.offers and not queue.requests:
            del self._queues[key]

    def _update(self, board: _Connection, info: Any) -> None:
        if not isinstance(info, dict):
            raise _Nonsense("What a board says of itself is an object.")
        info = board.info | info
        _text(info.get("key"), "a key")
        address = info.get("addr")
        if not isinstance(address, list) or len(address) != 2:
            raise _Nonsense("An address is a host and a port.")
        host = board.host if address[0] is None else _text(address[0], "a host")
        info["addr"] = [host, _port(address[1])]
        if not _is_shallow(info, _MAX_DEPTH):
            raise _Nonsense(f"What a board says of itself is nested {_MAX_DEPTH} times at most.")
        try:
            said = json.dumps(info, allow_nan=False).encode()
        except ValueError:
            raise _Nonsense("NaN and the infinities are not JSON.") from None
        if len(said) > _MAX_INFO:
            raise _Nonsense(f"A board says {_MAX_INFO} bytes of itself at most.")
        self._summary = None
        board.info, board.said = info, said
        board.answer(SUCCESS)

    def _summarize(self) -> bytes:
        """[SUCCESS, what there is]; `left_out` counts the boards that were too many, those that say most."""
        if self._summary is None:
            boards = [c for c in self.connections if str(c.info.get("key")).startswith("server")]
            listed, size = [], 0
            for board in sorted(boards, key=lambda c: len(c.said)):
                size += len(board.said) + 2
                if size <= _MAX_SUMMARY:
                    listed.append(board.said)
            known = (str(board.info["key"]).removeprefix("server:") for board in boards)
            keys = itertools.islice(itertools.chain(known, self._queues), 2 * _MAX_CONNECTIONS)
            queues = {key: self._queues.get(key, _NOBODY).sizes() for key in keys}
            rest = json.dumps({"queue_info": queues, "left_out": len(boards) - len(listed)}).encode()
            self._summary = b'[%d, {"server_info": [%s], %s]' % (SUCCESS, b", ".join(listed), rest[1:])
        return self._summary


def _fields(words: list[Any], least: int, most: int) -> list[Any]:
    if not least <= len(words) <= most:
        raise _Nonsense("The message has too few fields or too many.")
    return words


def _is_shallow(value: Any, levels: int) -> bool:
    """Readers have their limits, and one that nobody can read would hide all others."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def _text(value: Any, what: str) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _MAX_TEXT
        or not value.isascii()
        or not value.isprintable()
    ):
        raise _Nonsense(f"{what.capitalize()} is a text of 1 to {_MAX_TEXT} printable ASCII characters.")
    return value


def _port(value: Any) -> int:
    if type(value) is not int or not 0 < value < 65536:
        raise _Nonsense("A port is an integer from 1 to 65535.")
    return value


def serve(listener: socket.socket) -> None:
    """Serves until it is interrupted."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # tracebacks of what strangers do
    asyncio.run(_serve(listener))


async def _serve(listener: socket.socket) -> None:
    tracker = _Tracker(_room())
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(tracker), sock=listener)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        for connection in list(tracker.connections):
            connection.close()


def _room() -> int:
    """How many connections this process may have, after it has taken what files the system allows it."""
    wanted = _MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft) - _OTHER_FILES)
