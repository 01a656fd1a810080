"""One direction: what knows what, as the design says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import circle, circles, graph, imported_names, modules

ROOT = Path(__file__).parent.parent
TRAINING = {"torch", "torchvision", "onnx", "onnxscript", "onnxruntime"}
FORBIDDEN = {
    "trainers": {"bibench_tvm", "relay_passes", "schedules", "rpc", "tvm"},
    "relay_passes": {"bibench_tvm", "trainers", "rpc"} | TRAINING,
    "schedules": {"bibench_tvm", "trainers", "relay_passes", "rpc"} | TRAINING,
    # A board that has ONNX Runtime lends it to those who compare.
    "rpc": {"bibench_tvm", "trainers", "relay_passes", "schedules"} | TRAINING - {"onnxruntime"},
}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports anywhere, functions included."""
    return {module.split(".")[0] for module, _ in imported_names(file)}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_knows_only_what_it_may(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    assert {str(f): imported(f) & FORBIDDEN[package] for f in files if imported(f) & FORBIDDEN[package]} == {}


ON_A_BOARD = ["bibench_tvm.bench", "bibench_tvm.board", "bibench_tvm.run", "bibench_tvm.tracker"]
BOARD_ROOMS = ("rpc", "bibench_tvm.artifact", "bibench_tvm.detection")
ON_A_BOARD += [module for module in modules() if module.startswith(BOARD_ROOMS)]


# None in place of a package makes an import of it fail; tvm_ffi imports torch by itself where it finds it.
# Ours are forgotten before each, so that each is imported as the first.
IMPORT_EACH = """
import importlib, sys
sys.modules.update(dict.fromkeys({training!r}))
for module in {modules!r}:
    for name in [name for name in sys.modules if name.split(".")[0] in {ours!r}]:
        del sys.modules[name]
    try:
        importlib.import_module(module)
    except Exception as error:
        print(module, repr(error))
"""


def test_what_runs_on_a_board_needs_neither_torch_nor_onnx():
    ours = {"bibench_tvm", *FORBIDDEN}
    code = IMPORT_EACH.format(training=TRAINING, modules=ON_A_BOARD, ours=ours)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_there_is_no_circle():
    assert circles() == []


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_a_board_and_a_command_are_at_the_ends():
    """Nothing imports a command but its like; the kernels' parts know nothing of the kernels."""
    arrows = graph(modules())
    assert [room for room, others in arrows.items() if "bibench_tvm" in others] == []
    assert arrows["schedules.parts"] <= {"schedules", "schedules.targets"}
    assert arrows["bibench_tvm.cli"] <= {"rpc", "rpc.emulation"}
