"""What the pages say is where they say it: every path in README, CONTRIBUTING and docs exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]
FOLDERS = ("benchmarks", "bibench_tvm", "docs", "relay_passes", "rpc", "schedules", "tests", "trainers")
PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./@-]*)")


def paths(page: str) -> list[str]:
    return [path.rstrip(".") for path in PATH.findall((ROOT / page).read_text())]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    assert [path for path in paths(page) if not (ROOT / path).exists()] == []


def test_contributing_names_paths() -> None:
    """So that the test above says something."""
    assert len(paths("CONTRIBUTING.md")) > 30


def test_rows_are_whole() -> None:
    """Each kind of change has its files and something like it."""
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")][1:]
    kinds = {row.split("|")[1].strip() for row in rows}
    assert {"algorithm", "network", "task", "processor", "pass", "kernel", "command"} <= kinds
    assert all(len(re.findall(r"`[^`]+`", row)) >= 2 for row in rows)


def test_the_packages_that_run_tests_asks_for() -> None:
    """Its line of Python names modules, and runs before any test does."""
    [line] = re.findall(r"-c '\n(.*?)'\)", (ROOT / "run_tests.sh").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "qemu-user" in done.stdout
