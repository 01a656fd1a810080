"""What install.sh refuses before pip is asked, and that the pinned versions fit every promised Python."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROMISED = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
PYTHONS = [f"3.{minor}" for minor in range(8, 15) if f"3.{minor}" in PROMISED]


@pytest.mark.parametrize(
    ("pretence", "sentence"),
    [
        ("sys.version_info = (3, 10, 2)", "and 3.11 is needed. Set PYTHON to a newer one."),
        ("sys.maxsize = 2**31 - 1", "is a 32-bit Python, and TVM is there for 64-bit ones only."),
        ("os.confstr = lambda name: 'glibc 2.27'", "This system has glibc 2.27, and TVM needs glibc 2.28"),
        (
            "os.confstr = int  # which raises ValueError, as musl's does",
            "has a C library that is not glibc, and TVM needs",
        ),
    ],
)
def test_install_refuses_before_pip_does(pretence: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import os, sys\n{pretence}\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "BIBENCH_VENV": str(tmp_path / "venv")}
    environment["PIP_NO_INDEX"] = "1"  # so that nothing is downloaded if it is not refused
    done = subprocess.run([ROOT / "install.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("here", "importable", "sentence"),
    [
        (("espeak-ng",), False, "and {venv} lacks it. Type: ./install.sh"),
        ((), True, "This machine lacks {dataset}espeak-ng. Type: sudo apt-get install -y"),
        (("espeak-ng",), True, None),
    ],
    ids=["no packages of Python", "no packages of Debian", "all"],
)
def test_the_data(here: tuple[str, ...], importable: bool, sentence: str | None, tmp_path: Path) -> None:
    """With programs that only note how they are called, and a user who is not root."""
    bin, venv, data = tmp_path / "bin", tmp_path / "venv", tmp_path / "data"
    for path in (bin, venv / "bin", data):
        path.mkdir(parents=True)
    for name in ("dirname", "mktemp", "rm"):
        (bin / name).symlink_to(shutil.which(name) or "")
    for name, content in {"id": "echo 1000", **dict.fromkeys(here, "")}.items():
        (bin / name).write_text(f"#!/bin/sh\n{content}\n")
        (bin / name).chmod(0o755)
    python = venv / "bin" / "python"
    python.write_text(
        f"""#!/bin/sh
[ "$1" = -c ] && exit {int(not importable)}
echo "$@" >>{tmp_path}/calls
while [ $# -gt 1 ]; do [ "$1" = --dest ] && echo >"$2/vaderSentiment-3.3.2.tar.gz"; shift; done
"""
    )
    python.chmod(0o755)
    dataset = Path("/usr/share/datasets/fashion-mnist").is_dir()
    if not dataset and sentence is None:
        sentence = "This machine lacks dataset-fashion-mnist. Type: sudo apt-get install -y"
    environment = {
        "PATH": str(bin),
        "BIBENCH_VENV": str(venv),
        "BIBENCH_DATA": str(data),
        "HOME": str(tmp_path),
    }

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", ROOT / "install.sh", "data"], env=environment, capture_output=True, text=True
        )

    done = call()
    if sentence:
        wanted = sentence.format(venv=venv, dataset="" if dataset else "dataset-fashion-mnist ")
        assert done.returncode == 1 and wanted in done.stderr and len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "calls").exists()
        return
    assert done.returncode == 0, done.stderr
    pip, text, speech = (tmp_path / "calls").read_text().splitlines()
    assert pip.startswith("-m pip download") and "--no-deps --no-binary vaderSentiment --dest" in pip
    assert text.startswith("-m trainers.fetch text /") and text.endswith("/vaderSentiment-3.3.2.tar.gz")
    assert speech == "-m trainers.fetch speech"
    assert not Path(text.split()[-1]).parent.exists(), "nothing is left behind"
    (data / "standin_text").mkdir()
    assert call().returncode == 0
    assert len((tmp_path / "calls").read_text().splitlines()) == 4, "what is there stays"


def pins() -> dict[str, str]:
    """Package -> the version of constraints.txt, for those that are installed here."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalpha()]
    found = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    here = {canonicalize_name(d.metadata["Name"]) for d in metadata.distributions()}
    return {name: version for name, version in found.items() if name in here}


def test_the_pinned_versions_fit_every_python_that_is_promised() -> None:
    pinned, wrong = pins(), []
    assert PYTHONS and {"apache-tvm", "numpy", "torch", "pytest"} <= set(pinned)
    for name, version in pinned.items():
        found = metadata.distribution(name)
        assert found.version.split("+")[0] == version, f"{name}: ./install.sh test installs what is pinned"
        takes = SpecifierSet(found.metadata.get("Requires-Python") or "")
        for python in PYTHONS:
            wrong += [] if python in takes else [f"{name} {version} needs Python {takes}"]
            for needed in map(Requirement, found.requires or []):
                pin = pinned.get(canonicalize_name(needed.name))
                marker = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
                applies = needed.marker is None or needed.marker.evaluate(marker)
                if pin and applies and pin not in needed.specifier:
                    wrong.append(f"{name} {version} needs {needed}, on Python {python}")
    assert wrong == []
