"""Options of the whole suite, and one thread for each of its processes: their number is that of the cores."""

import os
import signal
from pathlib import Path

import pytest

# What is marked `quick`, for a hook: under a minute on two cores, so nothing that exports or compiles whole
# networks or runs Arm code. A file that takes more than 10 seconds by itself belongs into NOT_QUICK.
QUICK = (
    "test_imports.py",
    "test_install.py",
    "relay_passes/",
    "schedules/parts/",
    "schedules/records/test_records.py",
    "trainers/",
)
NOT_QUICK = (
    "relay_passes/ir/test_bound_values.py",
    "relay_passes/kernels/",
    "relay_passes/test_drop_empty.py",
    "relay_passes/test_find_binary.py",
    "relay_passes/test_lower_kernels.py",
    "relay_passes/test_schedule_rest.py",
    "relay_passes/test_write_in_place.py",
    "trainers/test_checkpoint.py",
    "trainers/test_export.py",
    "trainers/test_models.py",
    "trainers/test_ninth.py",
    "trainers/training/test_fit.py",
    "trainers/training/test_resume.py",
)

# Read when the libraries are loaded, here and in the commands that tests start.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS"):
    os.environ[variable] = "1"


def pytest_configure() -> None:
    """A shell has SIGINT ignored by what it leaves in the background, and our commands would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--images", type=int, default=3, help="Verify each algorithm on so many of the 300 bundled images."
    )
    parser.addoption(
        "--networks", type=int, default=100, help="Compile so many random networks, in modules of ten."
    )
    parser.addoption(
        "--renew-golden", action="store_true", help="Write down the kernels as they are; without -n."
    )
    parser.addoption("--kills", type=int, default=20, help="Kill so many writers of artifacts at random.")


def is_quick(path: Path) -> bool:
    file = path.relative_to(Path(__file__).parent).as_posix()
    return file.startswith(QUICK) and not file.startswith(NOT_QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What -m quick leaves out is not even imported, which takes seconds."""
    leave_out = config.option.markexpr == "quick" and collection_path.name.startswith("test_")
    return True if leave_out and not is_quick(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_quick(item.path):
            item.add_marker(pytest.mark.quick)
