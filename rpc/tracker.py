"""TVM's own tracker, which knows the boards and hands them out in the order of asking."""

import asyncio
import logging
import secrets
import socket

from tvm.rpc.tracker import TCPEventHandler, TrackerServerHandler

from rpc.wire import prepare

_GREETING_S = 10.0
_LOG = logging.getLogger(__name__)


def serve(listener: socket.socket) -> None:
    """Serves until it is interrupted."""
    # It would show a traceback for each stranger who sends garbage.
    logging.getLogger("RPCTracker").setLevel(logging.CRITICAL)
    asyncio.set_event_loop(asyncio.new_event_loop())
    tracker = _Tracker(listener, secrets.token_hex())
    try:
        tracker.run()
    finally:
        for connection in list(tracker._connections):
            connection.close()
        listener.close()


class _Tracker(TrackerServerHandler):
    def _on_event(self, _: object) -> None:
        # TVM's own tries again for ever when the process has no file descriptor left.
        try:
            connection, address = self._sock.accept()
        except OSError:
            return
        prepare(connection)
        _Connection(self, connection, address)


class _Connection(TCPEventHandler):
    def __init__(self, tracker: _Tracker, connection: socket.socket, address: tuple):
        super().__init__(tracker, connection, address)
        self._ioloop.call_later(_GREETING_S, self._leave_unless_greeted)

    def _leave_unless_greeted(self) -> None:
        if self._init_req_nbytes:
            self.close()

    def on_message(self, message: bytes) -> None:
        # TVM's own goes on after it has closed a connection that sent garbage, and fails with what it likes.
        try:
            super().on_message(message)
        except Exception:
            _LOG.debug("A connection is closed, whose message cannot be served.", exc_info=True)
            self.close()
