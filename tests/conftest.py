"""Options of the whole suite, and one thread for each of its processes: their number is that of the cores."""

import os

import pytest

# Read when the libraries are loaded, here and in the commands that tests start.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS"):
    os.environ[variable] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--images", type=int, default=3, help="Verify each algorithm on so many of the 300 bundled images."
    )
    parser.addoption("--kills", type=int, default=20, help="Kill so many writers of artifacts at random.")
