"""A file is the old one or the new one, whenever its writer is killed: of commands, and a checkpoint. What is
no regular file, and a link, stays what it is."""

import io
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.cli.whole_file import whole_file
from tests.nodes import NULL, Pipe, full, node
from trainers.torch_file import save_atomically

OLD, NEW = b"old" * 10_000, b"new" * 10_000
CALLS = ("open", "os.", "fsync")
Writer = Callable[[Path, bytes], None]


def plain(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def read_plain(path: Path | io.BytesIO) -> bytes:
    return path.read_bytes() if isinstance(path, Path) else path.read()


def read_checkpoint(path: Path | io.BytesIO) -> bytes:
    return torch.load(path)


WRITERS = pytest.mark.parametrize(
    ("write", "read", "error"),
    [
        (
            plain,
            lambda file: Path(file).read_bytes() if isinstance(file, Path) else file.read(),
            BibenchError,
        ),
        (save_atomically, read_checkpoint, OSError),
    ],
    ids=["file", "checkpoint"],
)


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


@WRITERS
def test_a_writer_that_is_killed_at_any_of_its_calls(
    write: Writer, read: Callable[[Path], bytes], error: type, tmp_path: Path
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


@WRITERS
def test_links_stay_and_lead_to_the_new_file(
    write: Writer, read: Callable[[Path], bytes], error: type, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    file, link, other = tmp_path / "below" / "file", tmp_path / "link", tmp_path / "below" / "other"
    link.symlink_to("below/other")
    other.symlink_to("file")
    for content in (OLD, NEW):  # at first the links lead nowhere
        write(link, content)
        assert link.is_symlink() and other.is_symlink() and not file.is_symlink()
        assert read(file) == read(link) == content
    assert {path.name for path in tmp_path.rglob("*")} == {"below", "file", "link", "other"}
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(error, match="circle cannot be written: Too many levels of symbolic links"):
        write(circle, NEW)
    assert circle.is_symlink()


@WRITERS
def test_a_pipe_gets_what_is_written(
    write: Writer, read: Callable[[io.BytesIO], bytes], error: type, tmp_path: Path
) -> None:
    pipe = Pipe(tmp_path / "pipe")
    write(tmp_path / "pipe", NEW)
    assert read(io.BytesIO(pipe.content)) == NEW
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


@WRITERS
def test_a_device_stays_one(write: Writer, read: object, error: type, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("device")
    if node(tmp_path / "device", NULL):
        for path in (tmp_path / "device", tmp_path / "link"):
            write(path, NEW)
        assert stat.S_ISCHR((tmp_path / "device").stat().st_mode)
        (tmp_path / "device").unlink()
    reason = full(tmp_path / "device")
    mode = (tmp_path / "device").stat().st_mode
    with pytest.raises(error, match=f"link cannot be written: {reason}"):
        write(tmp_path / "link", NEW * 10)
    assert (tmp_path / "device").stat().st_mode == mode and (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@WRITERS
def test_a_file_without_a_name_is_written_to(
    write: Writer, read: Callable[[io.BytesIO], bytes], error: type
) -> None:
    handle = os.memfd_create("nameless")
    os.write(handle, 100 * OLD)
    write(Path(f"/dev/fd/{handle}"), NEW)
    with os.fdopen(handle, "rb") as file:
        file.seek(0)
        assert read(io.BytesIO(file.read())) == NEW


@WRITERS
def test_what_cannot_be_written_is_named(write: Writer, read: object, error: type, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(error, match="folder cannot be written: Is a directory"):
        write(tmp_path / "folder", NEW)
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(error, match="file/below cannot be written: (Not a directory|File exists)"):
        write(tmp_path / "file" / "below", NEW)
    assert (tmp_path / "file").read_bytes() == OLD


def test_why_an_array_cannot_be_written(tmp_path: Path) -> None:
    """Where numpy writes past Python it does not say why it could not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        sentence = "y.npy cannot be written: File too large"
        with pytest.raises(BibenchError, match=sentence), whole_file(tmp_path / "y.npy") as file:
            np.save(file, np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
