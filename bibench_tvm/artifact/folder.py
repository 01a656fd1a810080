"""The folder of an artifact, and how a new one takes the place of an old one.

The manifest names the artifact's files, which lie under their digests: `model.so` as `model-<sha256>.so`.
New files come beside the old ones, and the rename of the manifest exchanges all of them at once: whoever
reads the folder, also after the writer was killed, finds the whole old artifact or the whole new one. The
plain names are links, for people; nothing here reads them. The user's own files stay.

The library for C is read by its plain names, by compilers. They are links through one more link to a folder
that holds the files of one version, so that they always fit together: `standalone/model.h` is
`standalone/.files/model.h`, and `.files` is exchanged by one rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import UNSET

from bibench_tvm.artifact.manifest import FILE as MANIFEST
from bibench_tvm.artifact.manifest import MODEL, Manifest, encode
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.whole_file import sync

STANDALONE = "standalone"
_SCRATCH = ".bibench-"
_FILES = ".files"


def stored_name(name: str, digest: str) -> str:
    """What the file `name` with this sha256 is called in the folder: model.so -> model-<digest>.so."""
    path = Path(name)
    return str(path.with_name(f"{path.stem}-{digest}{path.suffix}"))


def files_of(folder: Path, manifest: Manifest) -> list[Path]:
    """All that an artifact has in its folder, under each of its names."""
    places = [folder / MANIFEST]
    for name, digest in manifest.files.items():
        places += [folder / name, folder / stored_name(name, digest)]
    if manifest.standalone is not UNSET:
        in_c = manifest.standalone.files
        for place in folder / STANDALONE, folder / STANDALONE / version_of(in_c):
            places += [place / name for name in in_c]
    return places


@contextlib.contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """A folder in `out`, and so on the same disk, to build an artifact in; it is gone afterwards.

    Made first of all, it shows early whether `out` can be written; where the work fails, an `out` that was
    made for it goes too. What an earlier program left that was killed is cleared away: a living one holds a
    lock on its scratch folder. Raises UsageError.
    """
    place = Path(os.path.realpath(out))  # of a link that leads to no folder yet, that folder
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
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

    manifest: its `files` are names in `scratch`, each with its sha256; those of the library for C are in the
    folder `standalone` there. Raises BibenchError.
    """
    files = manifest.files
    in_c = manifest.standalone.files if manifest.standalone is not UNSET else {}
    try:
        (scratch / MANIFEST).write_bytes(encode(manifest))
        for name in (*files, *(f"{STANDALONE}/{name}" for name in in_c), MANIFEST):
            sync(scratch / name)
        with _locked(out):
            for name, digest in files.items():
                os.replace(scratch / name, out / stored_name(name, digest))
            if in_c:
                _store_version(scratch / STANDALONE, out / STANDALONE, in_c)
            sync(out)
            os.replace(scratch / MANIFEST, out / MANIFEST)  # from here on it is the new artifact
            sync(out)
            for name, digest in files.items():
                _link(scratch / name, out / name, stored_name(name, digest))
            if in_c:
                _show_version(scratch, out / STANDALONE, in_c)
            _remove_others(out, files)
            _remove_other_versions(out / STANDALONE, in_c)
    except OSError as error:
        raise _unwritable(BibenchError, out, error) from error


def _link(link: Path, place: Path, target: str) -> None:
    """Let `place` be another name of the file `target` beside it, by a link made under another name first."""
    try:
        os.symlink(target, link)
    except OSError:  # FAT, as on many memory cards, has no links
        shutil.copyfile(place.parent / target, link)
    os.replace(link, place)


def _remove_others(out: Path, files: Mapping[str, str]) -> None:
    """Remove the files of earlier artifacts, and of those that were to be, but their writer was killed."""
    for name in {MODEL, *files}:
        any_digest = re.escape(stored_name(name, "@")).replace("@", "[0-9a-f]{64}")
        for path in out.iterdir():
            if re.fullmatch(any_digest, path.name) and path.name != stored_name(name, files.get(name, "")):
                path.unlink(missing_ok=True)
        if name not in files:
            (out / name).unlink(missing_ok=True)


def version_of(files: Mapping[str, str]) -> str:
    """The folder of these files, by their sha256, in `standalone`."""
    return f"{_FILES}-{hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()}"


def _store_version(made: Path, standalone: Path, files: Mapping[str, str]) -> None:
    version = standalone / version_of(files)
    standalone.mkdir(exist_ok=True)
    if version.is_dir():  # the same again
        for name in files:
            os.replace(made / name, version / name)
    else:
        sync(made)
        os.replace(made, version)
    sync(standalone)


def _show_version(scratch: Path, standalone: Path, files: Mapping[str, str]) -> None:
    """Let the plain names be those of the stored version."""
    version, through = version_of(files), _FILES
    try:
        os.symlink(version, scratch / _FILES)
        os.replace(scratch / _FILES, standalone / _FILES)
    except OSError:  # no links here: copies, one after another
        through = version
    for name in files:
        shown, target = standalone / name, f"{through}/{name}"
        if not (shown.is_symlink() and os.readlink(shown) == target):
            _link(scratch / name, shown, target)


def _remove_other_versions(standalone: Path, files: Mapping[str, str]) -> None:
    """Remove what earlier artifacts had in `standalone`, and their plain names; it goes when it is empty."""
    for other in standalone.glob(f"{_FILES}-*"):
        if other.name == version_of(files):
            continue
        for stored in other.iterdir():
            plain = standalone / stored.name
            ours = plain.is_symlink() or (plain.is_file() and filecmp.cmp(plain, stored, shallow=False))
            if stored.name not in files and ours:
                plain.unlink()
        shutil.rmtree(other)
    if not (standalone / _FILES).exists():  # nothing is stored any more, or there are no links
        (standalone / _FILES).unlink(missing_ok=True)
    if not files:
        with contextlib.suppress(OSError):  # it is not there, or the user's files are in it
            standalone.rmdir()


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
