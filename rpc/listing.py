"""The boards that a tracker knows, and what they say of themselves."""

from dataclasses import dataclass
from typing import Any

from rpc.wire import Address, Tracker, TrackerCode, TrackerGone, show

_MAX_TEXT = 256


class RemoteError(RuntimeError):
    """The tracker, the board or the work on it failed: the message says which and how."""


@dataclass(frozen=True)
class BoardInfo:
    """features: LLVM's names, as in an artifact's manifest; governor: of the clock, None where unknown.

    TVM's own server does not say what it is: cpu and machine are then "unknown", and the numbers are 0.
    """

    key: str
    address: Address
    emulated: bool = False
    cpu: str = "unknown"
    machine: str = "unknown"
    cores: int = 0
    features: tuple[str, ...] = ()
    governor: str | None = None
    memory_bytes: int = 0
    tvm: str = "unknown"
    free: bool = True


class Boards(list[BoardInfo]):
    """left_out: how many more there are that said nonsense of themselves, or too much."""

    left_out = 0


def list_boards(tracker: Address) -> Boards:
    """All boards at a tracker, by key and address. Raises RemoteError where there is no tracker."""
    try:
        conversation = Tracker(tracker)
        try:
            return boards_of(conversation)
        finally:
            conversation.close()
    except TrackerGone as problem:
        raise RemoteError(str(problem)) from None


def boards_of(conversation: Tracker) -> Boards:
    """The same over a conversation that is going on. Raises TrackerGone, RemoteError."""
    try:
        _, summary = conversation.ask([TrackerCode.SUMMARY])
        infos, left_out = list(summary["server_info"]), summary.get("left_out", 0)
        if type(left_out) is not int:
            raise TypeError
    except TimeoutError:
        raise RemoteError(f"The tracker at {show(conversation.address)} does not answer.") from None
    except (TypeError, KeyError, ValueError, AttributeError):
        raise RemoteError(f"What the tracker at {show(conversation.address)} says makes no sense.") from None
    boards = Boards()
    for info in infos:
        try:
            boards.append(_board(info))
        except (TypeError, KeyError, ValueError):
            left_out += 1
    boards.sort(key=lambda board: (board.key, board.address))
    boards.left_out = left_out
    return boards


def _board(info: dict[str, Any]) -> BoardInfo:
    """Raises TypeError, KeyError or ValueError where a board says nonsense of itself."""
    host, port = info["addr"]
    said = info.get("bibench") or {}
    if not isinstance(said, dict):
        raise TypeError
    fields: dict[str, Any] = {name: _text(said[name]) for name in ("cpu", "machine", "tvm") if name in said}
    fields |= {name: _count(said[name]) for name in ("cores", "memory_bytes") if name in said}
    fields |= {name: said[name] is True for name in ("emulated", "free") if name in said}
    features = said.get("features", [])
    if not isinstance(features, list):
        raise TypeError
    fields["features"] = tuple(map(_text, features))
    fields["governor"] = _text(said["governor"]) if said.get("governor") else None
    return BoardInfo(_text(_text(info["key"]).removeprefix("server:")), address_of(host, port), **fields)


def address_of(host: object, port: object) -> Address:
    """Raises TypeError or ValueError where this cannot be one."""
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError
    return _text(host), port


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise ValueError
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError
    return value


def is_device(key: str) -> bool:
    """Whether this is the name of a device, and not a board's key at a tracker."""
    return key.startswith(("adb:", "ssh:"))
