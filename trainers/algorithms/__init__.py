"""One file per binarization algorithm. A new one is a file here with a class under `@algorithms.register`; or
a file anywhere, for `load_algorithm`."""

import hashlib
import importlib.util
import traceback
from pathlib import Path

from trainers.operator import algorithms

algorithms.discover(__name__, __path__)


def load_algorithm(path: Path) -> str:
    """Run a Python file such as those of this folder, and give the name of the algorithm that it registers.

    Raises:
        ValueError: there is no such file, it raises an error, or it does not register one algorithm.
    """
    before = set(algorithms.names())
    spec = importlib.util.spec_from_file_location(f"{__name__}.{path.stem}_of_its_user", path.absolute())
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file with an algorithm.")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except (Exception, SystemExit) as error:
        _forget_but(before)
        raise ValueError(sentence_of(error, path)) from error
    names = sorted(set(algorithms.names()) - before)
    if len(names) != 1:
        _forget_but(before)
        raise ValueError(
            f'{path} should register one algorithm, a class under `@algorithms.register("name")`, '
            f"and it registers {' and '.join(names) or 'none'}."
        )
    algorithms[names[0]].file_digest = digest_of(path.read_bytes())
    return names[0]


def digest_of(content: bytes) -> str:
    """Of an algorithm's file: 12 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:12]


def _forget_but(before: set[str]) -> None:
    for name in set(algorithms.names()) - before:
        algorithms.forget(name)


def sentence_of(error: BaseException, path: Path) -> str:
    """What went wrong in the file `path`, and in which of its lines; "" where it was somewhere else."""
    place = str(path.absolute())  # as Python has it
    if isinstance(error, SyntaxError) and error.filename == place:
        return f"{path}, line {error.lineno}: {error.msg}."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    said = " ".join(str(error).split())
    return f"{path}, line {lines[-1]}: {type(error).__name__}: {said[:200].rstrip('.')}." if lines else ""
