"""The boards that a tracker knows, and what they say of themselves."""

import contextlib
from dataclasses import dataclass
from typing import Any

from rpc.wire import Address, Tracker, TrackerCode, TrackerGone, show


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


def list_boards(tracker: Address) -> list[BoardInfo]:
    """All boards at a tracker, by key and address. Raises RemoteError where there is no tracker."""
    try:
        conversation = Tracker(tracker)
        try:
            return boards_of(conversation)
        finally:
            conversation.close()
    except TrackerGone as problem:
        raise RemoteError(str(problem)) from None


def boards_of(conversation: Tracker) -> list[BoardInfo]:
    """The same over a conversation that is going on. Raises TrackerGone, RemoteError."""
    try:
        _, summary = conversation.ask([TrackerCode.SUMMARY])
        infos = list(summary["server_info"])
    except TimeoutError:
        raise RemoteError(f"The tracker at {show(conversation.address)} does not answer.") from None
    except (TypeError, KeyError, ValueError):
        raise RemoteError(f"What the tracker at {show(conversation.address)} says makes no sense.") from None
    boards = []
    for info in infos:
        with contextlib.suppress(TypeError, KeyError, ValueError, AttributeError):
            boards.append(_board(info))  # one that says nonsense is left out
    return sorted(boards, key=lambda board: (board.key, board.address))


def _board(info: dict[str, Any]) -> BoardInfo:
    """Raises TypeError, KeyError, ValueError or AttributeError where a board says nonsense of itself."""
    host, port = info["addr"]
    key = str(info["key"]).removeprefix("server:")
    said = info.get("bibench") or {}
    kinds = {"cpu": str, "machine": str, "tvm": str, "cores": int, "memory_bytes": int}
    fields: dict[str, Any] = {name: kind(said[name]) for name, kind in kinds.items() if name in said}
    fields |= {name: said[name] is True for name in ("emulated", "free") if name in said}
    fields["features"] = tuple(str(feature) for feature in said.get("features", ()))
    fields["governor"] = str(said["governor"]) if said.get("governor") else None
    return BoardInfo(key, (str(host), int(port)), **fields)
