"""A ninth algorithm is one file, and its formula a second: with these two more, all generic tests pass.

The tests run in a copy of `trainers` and of themselves, to which the two files are added and nothing else.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NINTH = Path(__file__).parent / "ninth"
GENERIC = [
    "trainers",
    "bibench_tvm/importer/from_torch/test_torch_files.py",
    "bibench_tvm/compiling/test_rounding.py",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    leave_out = shutil.ignore_patterns("__pycache__", "ninth", "test_ninth.py")
    for folder in ("trainers", "tests/trainers", "tests/rpc/devices"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=leave_out)
    conftests = [f"tests/{folder}conftest.py" for folder in ("", "bibench_tvm/", "bibench_tvm/importer/")]
    for other in ("pyproject.toml", *conftests, *(f"tests/{path}" for path in GENERIC[1:])):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / other, tmp_path / other)
    return tmp_path


def add(copy: Path, name: str, formula: str | None) -> None:
    algorithm = (NINTH / "algorithm.py").read_text().replace('"ninth"', f'"{name}"')
    (copy / f"trainers/algorithms/{name}.py").write_text(algorithm)
    if formula is not None:
        (copy / f"tests/trainers/formulas/test_{name}.py").write_text(formula)


def test_the_generic_tests_pass_and_see_what_is_wrong(copy: Path) -> None:
    formula = (NINTH / "formula.py").read_text()
    add(copy, "ninth", formula)
    add(copy, "othersign", formula.replace("signs(x)", "-signs(x)"))
    add(copy, "othergradient", formula.replace("< 1.25", "< 1.0"))
    add(copy, "noformula", None)
    chosen = "ninth or ((othersign or othergradient or noformula) and formula and linear)"
    environment = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"}
    options = ["-q", "-rA", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(copy / "tests" / path) for path in GENERIC)],
        cwd=copy, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) \S*/(test_\w+)\.py::(\w+)\[([^\]]*)", done.stdout, re.M)

    def of(name: str, outcome: str, file: str = "") -> int:
        return sum(name in each[3] and each[0] == outcome and file in each[1] for each in outcomes)

    assert outcomes, done.stdout + done.stderr
    assert of("ninth", "FAILED") == of("ninth", "ERROR") == 0, done.stdout
    assert of("ninth", "PASSED") >= 36
    for file in ("forward", "gradients", "export", "fit", "checkpoint", "torch_files", "rounding"):
        assert of("ninth", "PASSED", file), file
    assert of("othersign", "PASSED", "forward") == 0 < of("othersign", "FAILED", "forward")
    assert of("othersign", "PASSED", "gradients") == 6
    assert of("othergradient", "PASSED", "gradients") == 0 < of("othergradient", "FAILED", "gradients")
    assert of("othergradient", "FAILED", "forward") == 0 == of("noformula", "PASSED")
    assert "Write the formula of noformula into" in done.stdout
