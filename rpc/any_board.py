"""A board, wherever it is: at a tracker, by its key, or without TVM, as `adb:SERIAL` or `ssh:HOST`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rpc.devices.device import Device, reach
from rpc.listing import is_device

if TYPE_CHECKING:
    from rpc.session import Board
    from rpc.wire import Address


@contextlib.contextmanager
def any_board(tracker: Address, key: str, *, wait_s: float, limit_s: float) -> Iterator[Board | Device]:
    """The board that is ours for a while.

    tracker: is not asked for a device, which is not waited for either. limit_s: of the session, or of each
    program on a device. Raises as `session` and `reach` do.
    """
    if is_device(key):
        with reach(key, limit_s=limit_s) as device:
            yield device
        return
    from rpc.session import session

    with session(tracker, key, wait_s=wait_s, limit_s=limit_s) as board:
        yield board
