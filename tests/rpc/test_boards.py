"""Trackers and boards from the outside: what they compute, what they are, and whom they listen to."""

import concurrent.futures
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from bibench_tvm.artifact import host
from rpc import emulated, machine, session, wire
from rpc.session import RemoteError, list_boards, local_board
from rpc.wire import Address, Tracker, TrackerCode
from tests.rpc.boards import (
    A72,
    HOST,
    ROOT,
    Command,
    Site,
    X,
    eventually,
    is_free,
    registered,
    squared,
    works,
)


def test_a_network_on_this_machine(here: tuple[Address, str], square: Callable[..., Path]) -> None:
    tracker, key = here
    with session.session(tracker, key, wait_s=60, limit_s=60) as board:
        info = board.info
        assert (info.key, info.emulated, info.machine) == (key, False, os.uname().machine)
        assert info.cores == len(os.sched_getaffinity(0)) and info.memory_bytes > 0 and info.cpu != "unknown"
        network = board.network(square(HOST))
        np.testing.assert_allclose(network.run([X])[0], squared(X), rtol=1e-4, atol=1e-3)
        assert all(0 < seconds < 1 for seconds in network.time([X], number=2, repeat=3))
        profile = network.profile([X], repeat=2)
        assert [name for name, _ in profile] == ["add", "matmul"]
        assert all(len(times) == 2 and min(times) > 0 for _, times in profile)
        assert network.peak_memory_bytes() > 1 << 20
        assert board.conditions()["load_average"] >= 0
        with pytest.raises(RemoteError, match="running the network failed: .*"):
            network.run([X[:3]])
        assert not is_free(tracker, key)
    eventually(lambda: is_free(tracker, key))
    with pytest.raises(RemoteError, match="previously closed"):
        network.run([X])


def test_a_board_names_every_feature_that_an_artifact_may_ask_for() -> None:
    assert set(machine.LLVM_FEATURES.values()) >= host.TELLING
    assert host.host_features() <= set(machine.describe()["features"])


def test_counts_are_exact_on_every_emulated_board(
    site: Site, start: Callable[..., Command], square: Callable[..., Path]
) -> None:
    tracker = site.tracker.address
    second = start("board", "--tracker", wire.show(tracker), "--key", "a72", "--emulate")
    assert second.says["emulated"] and second.says["cpu"] == "cortex-a72"
    boards = [board for board in registered(tracker, 3) if board.key == "a72"]
    said = {(board.emulated, board.machine, board.features) for board in boards}
    assert len(boards) == 2 and said == {(True, "aarch64", ("neon",))}
    local = emulated.run(square(A72), [[X]], timeout_s=60)[0][0]

    def once(number: int) -> tuple[Any, ...]:
        with session.session(tracker, "a72", wait_s=120, limit_s=60) as board:
            assert "the emulated board 'a72'" in str(board)
            network = board.network(square(A72))
            np.testing.assert_array_equal(network.run([X])[0], local)
            times = network.time([X], number=1, repeat=3)
            profile = network.profile([X], repeat=2)
            barrier.wait(60)  # so that the second has the other board
            return board.info.address, times[1:], profile

    barrier = threading.Barrier(2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        (one, times, profile), (other, *same) = pool.map(once, range(2))
    assert one != other
    assert same == [times, profile]
    assert times[0] == times[1]
    # 64 x 64 x 64 products, with four lanes and without.
    [(_, [add, _]), (_, [matmul, _])] = profile
    assert 64**2 / 4 < add * 1e9 < 64**2 * 10 and 64**3 / 4 < matmul * 1e9 < 64**3 * 10
    assert times[0] >= add + matmul


def test_compile_upload_run(site: Site, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(1)
    weights = numpy_helper.from_array(rng.normal(size=(8, 4, 3, 3)).astype("float32"), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    shapes = {"x": [1, 4, 8, 8], "y": [1, 8, 8, 8]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph([node], "small", [x], [y], [weights])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "small.onnx")
    samples = rng.normal(size=(2, 4, 8, 8)).astype("float32")
    np.save(tmp_path / "x.npy", samples)

    def command(name: str, *words: object) -> tuple[int, dict[str, Any]]:
        app = importlib.import_module(f"bibench_tvm.{name}").app
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        return done.exit_code, json.loads(done.stdout)

    artifact = tmp_path / "artifact"
    assert command("compile", tmp_path / "small.onnx", "--target", "rpi4b", "--out", artifact)[0] == 0
    address = wire.show(site.tracker.address)
    files = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]

    def run(key: str, tracker: str = address, folder: Path = artifact) -> tuple[int, str]:
        code, said = command("run", folder, *files, "--board", key, "--tracker", tracker, "--wait", 30)
        return code, said.get("error", "")

    code, said = command("run", artifact, *files, "--board", "a72", "--tracker", address)
    assert (code, said["board"], said["emulated"]) == (0, "a72", True)
    expected = emulated.run(artifact / "model.so", [[samples[:1]], [samples[1:]]], timeout_s=60)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.concatenate([y for [y] in expected]))

    code, listed = command("targets", "--tracker", address)
    assert [(b["key"], b["emulated"], b["free"]) for b in listed["boards"]] == [
        ("a72", True, True),
        ("here", False, True),
    ]
    shown = CliRunner().invoke(importlib.import_module("bibench_tvm.targets").app, ["--tracker", address])
    first, second = shown.stdout.splitlines()
    assert first.startswith("a72   free  cortex-a72 (emulated), 1 core, ") and second.startswith(
        "here  free  "
    )
    assert run("here")[0] == 1
    assert "is for rpi4b (aarch64), and the board 'here'" in run("here")[1]
    code, error = run("a73")
    assert (code, "has no board with the key 'a73'. It has 'a72', 'here'." in error) == (1, True)
    assert run("a72", "127.0.0.1:1")[1] == "There is no tracker at 127.0.0.1:1: connection refused."
    assert run("a72", "nowhere")[0] == 2
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["target"]["features"] = ["dotprod"]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    assert "lacks dotprod" in run("a72")[1]


def test_a_board_of_ones_own(square: Callable[..., Path]) -> None:
    with local_board() as (tracker, key):
        works(tracker, key, square(HOST))
        children = psutil.Process().children()
        [process] = [child for child in children if "rpc.local_board" in child.cmdline()]
        tree = [process, *process.children(recursive=True)]
    assert not any(child.is_running() for child in tree)
    with pytest.raises(RuntimeError, match="did not start: .*cortex-a1"), local_board(emulate="cortex-a1"):
        pass


def test_a_board_that_is_not_ours(site: Site) -> None:
    """TVM's own server registers like this, without a word of what it is."""
    address = site.tracker.address
    with contextlib.closing(Tracker(address)) as board:
        board.ask([TrackerCode.UPDATE_INFO, {"key": "server:stock", "addr": [None, 9]}])
        board.ask([TrackerCode.PUT, "stock", [9, "stock:0.5"], None])
        with (
            pytest.raises(RemoteError, match="The board 'stock' at 127.0.0.1:9 runs TVM's own server"),
            session.session(address, "stock", wait_s=60, limit_s=60),
        ):
            pass
        info = {"key": "server:stock", "addr": [None, 9], "bibench": {"machine": "aarch64", "cores": "many"}}
        board.ask([TrackerCode.UPDATE_INFO, info])
        assert [board.key for board in list_boards(address)] == ["a72", "here"]


def listening(command: Command) -> set[str]:
    connections = psutil.Process(command.process.pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_only_this_machine_unless_asked(site: Site, start: Callable[..., Command]) -> None:
    for command in site.tracker, site.here, site.arm:
        assert listening(command) == {"127.0.0.1"}
        assert "open to other" not in command.log.read_text()
    open_tracker = start("tracker", "--port", "0", "--host", "0.0.0.0")
    open_board = start("board", "--host", "0.0.0.0", "--tracker", "127.0.0.1:1", "--key", "k")
    assert open_tracker.says and open_board.says
    assert listening(open_tracker) == listening(open_board) == {"0.0.0.0"}
    assert "It has no password." in " ".join(open_tracker.log.read_text().split())
    assert "can run any program here, as you." in " ".join(open_board.log.read_text().split())


def test_wrong_arguments_are_sentences(site: Site) -> None:
    port = str(site.tracker.address[1])

    def error(*words: str) -> tuple[int, str]:
        line = [sys.executable, "-m", f"bibench_tvm.{words[0]}", *words[1:], "--json"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout)["error"]

    done = CliRunner().invoke(importlib.import_module("bibench_tvm.board").app, ["--print-install"])
    copy, install = done.stdout.splitlines()
    assert copy.endswith(f":{ROOT}/ bibench_tvm") and "./install.sh board" in install

    in_use = (2, f"Something else listens at 127.0.0.1:{port} already. Choose another --port.")
    assert error("tracker", "--port", port) == in_use
    assert error("board", "--tracker", "h:1", "--key", "k", "--port", port) == in_use
    assert "cannot listen at" in error("tracker", "--host", "192.0.2.1")[1]
    assert error("board", "--key", "k") == (2, "A board needs --tracker HOST:PORT and --key NAME.")
    assert error("board", "--tracker", "h", "--key", "k")[1].startswith("'h' is not an address. Write it as")
    assert error("board", "--tracker", "h:1", "--key", "a b")[0] == 2
    assert "goes with --emulate" in error("board", "--tracker", "h:1", "--key", "k", "--cpu", "max")[1]
    code, sentence = error("board", "--tracker", "h:1", "--key", "k", "--emulate", "--cpu", "cortex-a1")
    assert code == 2 and sentence.startswith("There is no emulated cortex-a1")
    with socket.create_server(("127.0.0.1", 0)) as other:

        def hang_up() -> None:
            other.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = wire.show(other.getsockname())
        sentence = f"What listens at {address} is not a tracker."
        assert error("targets", "--tracker", address) == (1, sentence)
