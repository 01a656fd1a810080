"""Options of the whole suite, and one thread for each of its processes: their number is that of the cores."""

import os
from pathlib import Path

import pytest

# What is marked `quick`, for a hook: under a minute on two cores, so nothing that exports or compiles whole
# networks or runs Arm code.
QUICK = (
    "test_imports.py",
    "test_install.py",
    "relay_passes/",
    "schedules/test_bits.py",
    "schedules/test_epilogue.py",
    "schedules/test_records.py",
    "trainers/",
)
NOT_QUICK = (
    "relay_passes/test_lower_kernels.py",
    "relay_passes/test_schedule_rest.py",
    "trainers/test_export.py",
    "trainers/test_train_command.py",
)

# Read when the libraries are loaded, here and in the commands that tests start.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS"):
    os.environ[variable] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--images", type=int, default=3, help="Verify each algorithm on so many of the 300 bundled images."
    )
    parser.addoption(
        "--networks", type=int, default=100, help="Compile so many random networks, in modules of ten."
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        if file.startswith(QUICK) and not file.startswith(NOT_QUICK):
            item.add_marker(pytest.mark.quick)
