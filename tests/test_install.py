"""What install.sh refuses before pip is asked, and that the pinned versions fit every promised Python."""

import os
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
