"""A file is the old one or the new one, whenever its writer is killed: of commands, and a checkpoint."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bibench_tvm.cli.whole_file import whole_file
from trainers.checkpoint import save_atomically

OLD, NEW = b"old" * 10_000, b"new" * 10_000
CALLS = ("open", "os.", "fsync")


def plain(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def read_checkpoint(path: Path) -> bytes:
    return torch.load(path)


def child(work: Callable[[], None], die_at: int, folder: Path) -> tuple[int, list[str]]:
    """(how a process ended that is killed as it makes its call `die_at`, the calls that it made)."""
    log = os.open(folder / "calls", os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    if (pid := os.fork()) == 0:
        calls = 0

        def count(event: str, _: tuple) -> None:
            nonlocal calls
            if event.startswith(CALLS):
                calls += 1
                if calls == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.write(log, f"{event}\n".encode())

        fsync = os.fsync
        os.fsync = lambda handle: (sys.audit("fsync"), fsync(handle))[1]  # Python itself tells nobody
        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(log)
    return status, (folder / "calls").read_text().split()


@pytest.mark.parametrize(("write", "read"), [(plain, Path.read_bytes), (save_atomically, read_checkpoint)])
def test_a_writer_that_is_killed_at_any_of_its_calls(
    write: Callable[[Path, bytes], None], read: Callable[[Path], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    outcomes = []
    for number in range(1, 100):
        write(path, OLD)
        status, calls = child(lambda: write(path, NEW), number, tmp_path)
        outcomes.append(read(path))
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert set(outcomes[:-1]) == {OLD} and outcomes[-1] == NEW and len(outcomes) > 4
    assert calls.index("fsync") < calls.index("os.rename")
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 60)
    plain(path, OLD)
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(NEW)
        raise ZeroDivisionError
    assert path.read_bytes() == OLD and list(tmp_path.iterdir()) == [path]
