"""A disk that is full, or files that are limited in size, end in a sentence and not in LLVM."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bibench_tvm import BibenchError, compile_model, load
from bibench_tvm.compiling.link import link_shared


def limited(limit: int, *arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "bibench_tvm.compile", *map(str, arguments)]
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


@pytest.mark.parametrize("limit", [100, 30_000])
def test_files_that_may_not_be_so_large(small_file: Path, tmp_path: Path, limit: int) -> None:
    done = limited(limit, small_file, "--target", "host", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"This process may write files of {limit:,} bytes (ulimit -f)" in " ".join(done.stderr.split())
    assert "LLVM" not in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_files_that_may_be_large_enough(small_file: Path, tmp_path: Path) -> None:
    done = limited(10_000_000, small_file, "--target", "host", "--out", tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_temporary_disk_is_not_needed_for_objects(small_file: Path, tmp_path: Path) -> None:
    """A program in the linker's place looks where the objects are."""
    code = (
        "import sys; from pathlib import Path; from bibench_tvm.compiling import compiler, link; "
        "real = link.link_shared; "
        "link.link_shared = lambda out, objects, options=None: "
        "(print(*[Path(o).resolve() for o in objects], sep='\\n'), real(out, objects))[1]; "
        f"compiler.compile_model({str(small_file)!r}, target='host', out={str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.split("\n")) >= 3 and all(
        "/memfd:" in o for o in done.stdout.split("\n") if "/" in o
    )


@pytest.mark.parametrize("end", ["kill -BUS $$", "kill -XFSZ $$", "echo No space left on device >&2; exit 1"])
def test_a_linker_that_finds_the_disk_full(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bibench_tvm.compiling.link.linker", lambda: [shutil.which("sh"), "-c", end])
    with pytest.raises(BibenchError, match=f"The disk of {tmp_path} is full"):
        link_shared(str(tmp_path / "model.so"), [])


@pytest.mark.parametrize("name", ["a%sb", "100%", "%p %m", "a;b 'c' @d"])
@pytest.mark.parametrize("relative", [False, True])
def test_folders_whose_names_have_signs_of_the_linkers(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path(name) if relative else tmp_path / name
    made = compile_model(small_file, target="host", out=out, standalone=True, verify=1)
    assert made.record.verification.passed is True
    assert load(out).run(np.zeros((1, 4, 8, 8), np.float32)).shape == (1, 5)
