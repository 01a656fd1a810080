"""A missing piece is one sentence with one line to type; and what a board does not need, it does not load."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bibench_tvm import board
from bibench_tvm.artifact import threads
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.tuning import tuner
from bibench_tvm.tuning.places import OnBoard
from bibench_tvm.tuning.trials import Measured, open_trials
from rpc import machine, missing
from rpc.emulation import qemu
from rpc.session import BoardInfo, local_board, session

HIDING = """
import os, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["HIDDEN"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""


@pytest.fixture(scope="module")
def hiding(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for PYTHONPATH: Python then does not find the packages in HIDDEN."""
    folder = tmp_path_factory.mktemp("hiding")
    (folder / "sitecustomize.py").write_text(HIDING)
    return str(folder)


@pytest.fixture
def inputs(artifact: Artifact, tmp_path: Path) -> list[object]:
    (spec,) = artifact.manifest["inputs"]
    np.save(tmp_path / "x.npy", np.zeros(spec["shape"], spec["dtype"]))
    return [artifact.folder, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("onnx", ["compile", "{file}", "--target", "host"]),
        ("ziglang", ["compile", "{file}", "--target", "host"]),
        ("torch", ["compile", "--arch", "resnet20", "--algorithm", "bnn", "--target", "host"]),
        ("tvm", ["run", "{artifact}", "--input", "x", "--output", "y"]),
        ("tvm", ["board", "--tracker", "127.0.0.1:9", "--key", "k"]),
        ("onnx", ["tune", "{file}", "--out", "{out}"]),
        ("xgboost", ["tune", "{file}", "--out", "{out}"]),
        ("altair", ["report", "{out}", "--out", "{out}/report.html"]),
        ("jinja2", ["report", "{out}", "--out", "{out}/report.html"]),
        ("vl_convert", ["report", "{out}", "--out", "{out}/report.md"]),
    ],
)
def test_every_command_says_the_same(
    command: Callable,
    hiding: str,
    artifact: Artifact,
    small_file: Path,
    tmp_path: Path,
    package: str,
    line: Any,
) -> None:
    names = {"file": small_file, "artifact": artifact.folder, "out": tmp_path}
    if line[0] == "compile":
        line = [*line, "--out", "{out}"]
    words = [word.format(**names) for word in line]
    done = command(*words, "--json", PYTHONPATH=hiding, HIDDEN=package)
    assert (done.code, done.json) == (1, {"error": missing.sentence_of(package)})


def test_every_sentence_has_one_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in [*missing._EXTRAS, *missing._ALWAYS]:
        sentence = str(missing.sentence_of(package))
        assert package in sentence and sentence.count("Type: ./install.sh") == 1
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "compile on the workstation" in str(missing.sentence_of("torch"))
    assert "Type there: bibench compile" in str(missing.sentence_of("torch"))
    assert "./install.sh tune (on a board: tune on the workstation" in str(missing.sentence_of("xgboost"))
    assert missing.sentence_of("a_package_of_others") is None


@pytest.mark.parametrize(
    "line", [["board", "--tracker", "127.0.0.1:9", "--key", "k", "--emulate"], ["tune", "--target", "rpi4b"]]
)
def test_without_qemu(command: Callable, small_file: Path, tmp_path: Path, line: list[str]) -> None:
    options = [small_file, "--out", tmp_path] if line[0] == "tune" else []
    done = command(*line, *options, "--json", PATH=str(tmp_path))
    assert (done.code, done.json) == (
        1,
        {"error": f"qemu-aarch64 is not installed. Type: {qemu.apt_line(qemu.DEBIAN_PACKAGES)}"},
    )


def test_a_board_needs_no_package_but_tvm(command: Callable, hiding: str, inputs: list[object]) -> None:
    hidden = "torch,onnx,onnxruntime,psutil,tornado,cloudpickle,matplotlib,ziglang,xgboost,scipy"
    assert command("run", *inputs, PYTHONPATH=hiding, HIDDEN=hidden).code == 0
    done = command("bench", inputs[0], "--runs", 2, "--json", PYTHONPATH=hiding, HIDDEN=hidden)
    assert done.code == 0 and done.json["complete"]


LOADED = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(f"bibench_tvm.{sys.argv[0]}", run_name="__main__")
except SystemExit as end:
    status = open("/proc/self/status").read().split()
    print(json.dumps([end.code, "torch" in sys.modules, int(status[status.index("VmHWM:") + 1]) / 1024]))
"""


@pytest.mark.parametrize(("name", "most_megabytes"), [("run", 300), ("bench", 160)])
def test_torch_stays_out_where_it_is_installed(
    artifact: Artifact, inputs: list[object], name: str, most_megabytes: int
) -> None:
    words = inputs if name == "run" else [artifact.folder, "--runs", 2]
    line = [sys.executable, "-c", LOADED, name, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True)
    code, torch, megabytes = json.loads(done.stdout.splitlines()[-1])
    assert (code, torch) == (0, False), done.stderr
    assert megabytes < most_megabytes


def test_a_library_has_torch_where_its_program_has_it() -> None:
    code = "import torch, tvm_ffi, sys; from rpc import lean; lean.import_tvm(); import tvm; "
    code += "print(sys.modules['torch'] is torch, tvm.base._RUNTIME_ONLY)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_a_system_that_tells_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Android's: no sched_getaffinity, and nothing to be read of oneself or of the machine."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(machine, "_read", lambda path: None)

    def denied() -> tuple[float, float, float]:
        raise PermissionError

    monkeypatch.setattr(os, "getloadavg", denied)
    assert machine.describe()["cores"] == os.cpu_count()
    assert machine.peak_memory(True) > 1 << 20
    conditions = machine.conditions()
    assert conditions["load_average"] is conditions["memory_available_bytes"] is None
    with pytest.raises(UsageError, match=f"from 1 to {os.cpu_count()} can run"):
        threads.use_threads(10**6)


def test_records_say_the_threads_of_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", "2")
    with local_board() as place, session(*place, wait_s=60, limit_s=60) as there:
        monkeypatch.setenv("TVM_NUM_THREADS", "7")
        conditions = OnBoard(there).conditions()
    assert json.loads(conditions)["threads"] == 2
    target, board_info = resolve_target("host"), BoardInfo("k", ("h", 1), cpu="cortex-a72")
    processor = target.processor
    with open_trials(tmp_path, processor, target.kernels, "seconds", 0) as kept:
        task: Any = type("Task", (), {"key": "a task"})
        kept.keep(task, "a tile", Measured(1.0, conditions=conditions))
        path = tuner._write(tmp_path, kept, "net", target, "seconds", board_info, None)
    assert "with 2 threads;" in json.loads(path.read_text())["obtained"]


def test_lines_that_install_a_board(invoke: Callable) -> None:
    copy, install = invoke("board", "--print-install", "--from", "pi@10.0.0.7").stdout.splitlines()
    assert "rsync -a --exclude '.*' pi@10.0.0.7:/" in copy and "./install.sh board" in install
    default = invoke("board", "--print-install")
    assert "500 MB of disk" in default.stderr and "--without-ssh" in default.stderr
    serve, fetch, _ = invoke(
        "board", "--print-install", "--without-ssh", "--from", "10.0.0.7"
    ).stdout.splitlines()
    assert "http.server" in serve and "curl -f http://10.0.0.7:8000/bibench_tvm.tgz | tar" in fetch
    assert "ssh" not in serve + fetch
    for wrong in "a b", "x@", "@", "a/b":
        assert invoke("board", "--print-install", "--from", wrong).code == 2
    assert invoke("board", "--without-ssh").code == 2
    assert board.install_lines("me@there")[1][0].count("me@there:") == 1
