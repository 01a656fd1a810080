"""Files that are no regular ones, for what writes: of a test's own, since code at fault may replace them."""

import os
import stat
import threading
from pathlib import Path

NULL, FULL = os.makedev(1, 3), os.makedev(1, 7)


def node(path: Path, device: int) -> bool:
    """Make a device of one's own; False where this user may not."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, device)
    except PermissionError:
        return False
    return True


def full(path: Path) -> str:
    """What cannot be written to, and how the system says so: a full device, or a pipe that nobody reads."""
    if node(path, FULL):
        return "No space left on device"
    if os.geteuid():  # who could not replace the system's own
        path.symlink_to("/dev/full")
        return "No space left on device"
    os.mkfifo(path)
    threading.Thread(target=lambda: os.close(os.open(path, os.O_RDONLY)), daemon=True).start()
    return "Broken pipe"


class Pipe:
    """A named pipe, whose reader gets all that is written to it; `content` waits for that."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=lambda: self._parts.append(path.read_bytes()), daemon=True)
        self._reader.start()

    @property
    def content(self) -> bytes:
        self._reader.join(60)
        return b"".join(self._parts)
