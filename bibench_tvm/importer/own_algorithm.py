"""`--mine FILE.py`: an algorithm of the user's own, beside those that there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.whole_file import whole_file

Mine = Annotated[
    Path | None,
    typer.Option(metavar="FILE.py", help="An algorithm of your own, as a file of trainers/algorithms/ is."),
]


class Own(msgspec.Struct, frozen=True):
    """An algorithm of the user's own: its name, the file that registers it, and a digest of this."""

    name: str
    path: Path
    digest: str

    def options(self, algorithm: str) -> list[str]:
        """What a command for `algorithm` is to be given."""
        return ["--mine", str(self.path)] if algorithm == self.name else []

    @property
    def outside(self) -> dict[str, str]:
        """As a Job has it: what the file holds, and not where it lies, is what matters."""
        return {str(self.path): self.digest}


def kept_algorithm(path: Path, folder: Path) -> Path:
    """A copy of the file below `folder`, under the digest of what it holds: what was scored stays what it was
    while the user goes on with the file, and another version of it is another command.

    Raises:
        UsageError: the file cannot be read, or the folder not be made.
        BibenchError: the copy cannot be written.
    """
    from trainers.algorithms import digest_of

    try:
        content = path.read_bytes()
        kept = folder.absolute() / "mine" / digest_of(content) / path.name
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(kept) as file:
                file.write(content)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}.") from error
    return kept


@contextlib.contextmanager
def own_algorithm(path: Path | None) -> Iterator[Own | None]:
    """Have the algorithm in `path` for the block, and say of an error in the block whether it is its own.

    Without a path there is none.

    Raises:
        ValueError: as `load_algorithm`.
        BibenchError: the file raised an error within the block.
    """
    if path is None:
        yield None
        return
    from trainers.algorithms import algorithms, load_algorithm, sentence_of

    name = load_algorithm(path)
    own = Own(name, path, algorithms[name].file_digest)
    try:
        yield own
    except (Exception, SystemExit) as error:
        if sentence := sentence_of(error, path):
            raise BibenchError(sentence) from error
        raise
    finally:
        algorithms.forget(own.name)
