"""The replacement of an artifact: whenever its writer dies, and whenever a reader looks, one is there, whole.

`pytest tests/bibench_tvm/artifact/test_folder.py --kills 200` kills 200 writers at random.
"""

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import UNSET, structs

from bibench_tvm import BibenchError, load
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.folder import STANDALONE, install, scratch_beside
from bibench_tvm.artifact.manifest import Standalone

IN_C = ("libmodel.a", "model.h")
CALLS = ("open", "os.", "fcntl.", "shutil.", "fsync")


class Replacements:
    """Artifacts that differ in name and library, to be put into one folder. Nobody runs them."""

    def __init__(self, out: Path, artifact: Artifact):
        self.out, self.artifact = out, artifact

    def install(self, name: str) -> None:
        content = name.encode() * 10_000
        files = {"model.so": hashlib.sha256(content).hexdigest()}
        with scratch_beside(self.out) as scratch:
            (scratch / "model.so").write_bytes(content)
            (scratch / STANDALONE).mkdir()
            for file in IN_C:
                (scratch / STANDALONE / file).write_text(f"{file} of {name}")
            self.manifest = structs.replace(
                self.artifact.record, model=name, files=files, standalone=self.in_c(name)
            )
            install(scratch, self.out, self.manifest)

    def in_c(self, name: str) -> Standalone:
        return Standalone(
            name="model",
            files={file: hashlib.sha256(f"{file} of {name}".encode()).hexdigest() for file in IN_C},
            workspace_bytes=1,
            thread_bytes=0,
            alignment=64,
            code_and_constants=1,
            undefined_symbols=(),
            checksum="0" * 64,
        )

    def child(self, name: str, die_at: int = 0) -> int:
        """A process that installs `name`, and is killed as it makes its system call `die_at`."""
        if child := os.fork():
            return child
        made = 0

        def count(event: str, _: tuple) -> None:
            nonlocal made
            made += event.startswith(CALLS)
            if made == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        fsync = os.fsync
        os.fsync = lambda handle: (sys.audit("fsync"), fsync(handle))[1]  # Python itself tells nobody
        sys.addaudithook(count)
        try:
            self.install(name)
        finally:
            os._exit(0)

    def found(self) -> str:
        """The name of the artifact in the folder; raises where that is not one, and whole."""
        artifact = load(self.out)
        name = artifact.manifest["model"]
        assert artifact._library.read() == name.encode() * 10_000
        return name

    def found_in_c(self) -> str:
        """The name of the library for C; raises where its files do not belong together."""
        contents = [(self.out / STANDALONE / file).read_text().split(" of ") for file in IN_C]
        assert [file for file, _ in contents] == list(IN_C)
        (name,) = {name for _, name in contents}
        return name

    def names(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())

    def whole(self) -> list[str]:
        stored = json.loads((self.out / "manifest.json").read_text())["files"]["model.so"]
        versions = list((self.out / STANDALONE).glob(".files-*"))
        assert len(versions) == 1 and self.found_in_c() == self.found()
        assert (self.out / STANDALONE / "main.c").read_text() == "mine"
        return ["manifest.json", f"model-{stored}.so", "model.so", "notes.txt", "standalone"]


@pytest.fixture
def folder(artifact: Artifact, tmp_path: Path) -> Iterator[Replacements]:
    """A folder with an artifact and a file of the user's, and somebody who reads it all the time."""
    replacements = Replacements(tmp_path / "out", artifact)
    replacements.install("first")
    (tmp_path / "out/notes.txt").write_text("mine")
    (tmp_path / "out/standalone/main.c").write_text("mine")
    problems: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                replacements.found()
            except Exception as problem:
                problems.append(problem)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield replacements
    finally:
        done.set()
        reader.join()
    assert problems == []


def test_a_writer_that_is_killed_at_any_of_its_calls(folder: Replacements) -> None:
    outcomes = []
    for number in range(1, 200):
        folder.install("old")
        status = os.waitstatus_to_exitcode(os.waitpid(folder.child("new", number), 0)[1])
        outcomes.append(folder.found())
        assert folder.found_in_c() in ("old", outcomes[-1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        if number % 5 == 0:  # what is left behind goes with the next
            folder.install("next")
            assert folder.names() == folder.whole()
    assert status == 0 and folder.names() == folder.whole()
    changes = [a + b for a, b in zip(outcomes, outcomes[1:], strict=False) if a != b]
    assert changes == ["oldnew"] and len(outcomes) > 20


def test_writers_that_are_killed_at_random(folder: Replacements, request: pytest.FixtureRequest) -> None:
    start = time.monotonic()
    os.waitpid(folder.child("old"), 0)
    longest = 1.2 * (time.monotonic() - start)
    chance = random.Random(0)
    for number in range(request.config.getoption("--kills")):
        child = folder.child(f"new{number}")
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        folder.found()
    folder.install("last")
    assert folder.names() == folder.whole()


def test_two_writers_at_once(folder: Replacements) -> None:
    for _ in range(5):
        for child in [folder.child(name) for name in ("one", "other", "third")]:
            assert os.waitpid(child, 0)[1] == 0
        assert folder.found() in ("one", "other", "third") and folder.names() == folder.whole()


def test_the_artifact_that_was_loaded_stays(folder: Replacements) -> None:
    before = load(folder.out)
    folder.install("another")
    assert before._library.read() == b"first" * 10_000 and before.record.model == "first"


def test_a_file_system_without_links(folder: Replacements, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    folder.install("copied")
    assert (folder.out / "model.so").read_bytes() == b"copied" * 10_000
    assert not (folder.out / "model.so").is_symlink() and folder.names() == folder.whole()


def test_a_disk_that_is_full(folder: Replacements, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def fail(source: Path, place: Path) -> None:
        if place.name == "manifest.json":
            raise OSError(28, "No space left on device")
        replace(source, place)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BibenchError, match="cannot be written: No space left on device"):
        folder.install("new")
    assert folder.found() == "first" and folder.found_in_c() == "first"


@pytest.mark.parametrize("links", [True, False])
def test_a_library_for_c_goes_with_its_artifact(
    links: bool, folder: Replacements, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "symlink", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    folder.install("second")
    made, content = structs.replace(folder.manifest, model="x"), b"x" * 10_000
    files = {"model.so": hashlib.sha256(content).hexdigest()}
    renamed = {"kws.h": hashlib.sha256(content).hexdigest()}
    for standalone in (structs.replace(folder.in_c("x"), name="kws", files=renamed), UNSET):
        with scratch_beside(folder.out) as scratch:
            (scratch / "model.so").write_bytes(content)
            (scratch / STANDALONE).mkdir()
            (scratch / STANDALONE / "kws.h").write_bytes(content)
            install(scratch, folder.out, structs.replace(made, files=files, standalone=standalone))
        visible = {path.name for path in (folder.out / STANDALONE).glob("[!.]*")}
        assert visible == {"main.c"} | (set() if standalone is UNSET else {"kws.h"})
    assert [path.name for path in (folder.out / STANDALONE).iterdir()] == ["main.c"]


def test_the_scratch_of_who_lives_is_left_alone_and_of_who_was_killed_is_not(tmp_path: Path) -> None:
    (tmp_path / ".bibench-killed").mkdir()
    (tmp_path / ".bibench-killed" / "model.so").write_bytes(b"half of it")
    with scratch_beside(tmp_path) as first:
        assert not (tmp_path / ".bibench-killed").exists()
        with scratch_beside(tmp_path) as second:
            assert first.exists() and second.exists() and first != second
    assert list(tmp_path.iterdir()) == []
