"""The folder of an artifact, and how a new one takes the place of an old one.

The manifest names the artifact's files, which lie under their digests: `model.so` as `model-<sha256>.so`.
New files come beside the old ones, and the rename of the manifest exchanges all of them at once: whoever
reads the folder, also after the writer was killed, finds the whole old artifact or the whole new one. The
plain names are links, for people; nothing here reads them. The user's own files stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bibench_tvm.artifact.manifest import FILE as MANIFEST
from bibench_tvm.artifact.manifest import Manifest, encode
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.whole_file import sync

_SCRATCH = ".bibench-"


def stored_name(name: str, digest: str) -> str:
    """What the file `name` with this sha256 is called in the folder: model.so -> model-<digest>.so."""
    path = Path(name)
    return str(path.with_name(f"{path.stem}-{digest}{path.suffix}"))


@contextlib.contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """A folder in `out`, and so on the same disk, to build an artifact in; it is gone afterwards.

    Made first of all, it shows early whether `out` can be written; where the work fails, an `out` that was
    made for it goes too. What an earlier program left that was killed is cleared away: a living one holds a
    lock on its scratch folder. Raises UsageError.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            for left in out.glob(f"{_SCRATCH}*"):
                with contextlib.suppress(OSError), _locked(left, wait=False):
                    shutil.rmtree(left)
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=out))
            handle = os.open(scratch, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise _unwritable(UsageError, out, error) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)
        with contextlib.suppress(OSError):  # the first folder that is not empty ends it
            for folder in made:
                folder.rmdir()


def install(scratch: Path, out: Path, manifest: Manifest) -> None:
    """Move a finished artifact from `scratch`, which is in `out`, into `out`.

    manifest: its `files` are names in `scratch`, each with its sha256. Raises BibenchError.
    """
    files = manifest.files
    try:
        (scratch / MANIFEST).write_bytes(encode(manifest))
        for name in (*files, MANIFEST):
            sync(scratch / name)
        with _locked(out):
            for name, digest in files.items():
                os.replace(scratch / name, out / stored_name(name, digest))
            sync(out)
            os.replace(scratch / MANIFEST, out / MANIFEST)  # from here on it is the new artifact
            sync(out)
            for name, digest in files.items():
                _link(scratch / name, out / name, stored_name(name, digest))
            _remove_others(out, files)
    except OSError as error:
        raise _unwritable(BibenchError, out, error) from error


def _link(link: Path, place: Path, target: str) -> None:
    """Let `place` be another name of the file `target` beside it, by a link made under another name first."""
    try:
        os.symlink(target, link)
    except OSError:  # FAT, as on many memory cards, has no links
        shutil.copyfile(place.with_name(target), link)
    os.replace(link, place)


def _remove_others(out: Path, files: Mapping[str, str]) -> None:
    """Remove the files of earlier artifacts, and of those that were to be, but their writer was killed."""
    for name, digest in files.items():
        any_digest = re.escape(stored_name(name, "@")).replace("@", "[0-9a-f]{64}")
        for path in out.iterdir():
            if re.fullmatch(any_digest, path.name) and path.name != stored_name(name, digest):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError where another holds it and one is not to wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _unwritable(kind: type[BibenchError], out: Path, error: OSError) -> BibenchError:
    return kind(f"The folder {out} cannot be written: {error.strerror or error}.")
