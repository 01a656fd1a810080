"""Trackers and boards from the outside: what they compute, who gets them when, and what they survive."""

import concurrent.futures
import contextlib
import functools
import importlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tvm
from tvm import relax
from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC
from tvm.script import relax as R
from tvm.script import tirx as T
from typer.testing import CliRunner

from bibench_tvm.artifact import host
from rpc import client, machine, wire
from rpc.client import RemoteError, list_boards, local_board
from rpc.emulation import arm64
from rpc.wire import Address, Tracker, TrackerCode, receive, send

ROOT = Path(__file__).parent.parent.parent
HOST = {"kind": "llvm"}
A72 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}
A76 = {**A72, "mcpu": "cortex-a76"}


class Command:
    """`python -m bibench_tvm.NAME --json ...` that runs until it is stopped; `says` is its JSON object."""

    def __init__(self, *words: str, folder: Path, max_file_bytes: int | None = None):
        limit = [] if max_file_bytes is None else ["prlimit", f"--fsize={max_file_bytes}"]
        self.log = folder / f"{words[0]}-{time.monotonic_ns()}.log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*limit, sys.executable, "-m", f"bibench_tvm.{words[0]}", *words[1:], "--json"],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @functools.cached_property
    def says(self) -> dict[str, Any]:
        """Read when it is needed, so that commands can start side by side."""
        assert self.process.stdout
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                break
        said = json.loads(text or "{}")
        assert "port" in said, self.log.read_text()
        return said

    @property
    def address(self) -> Address:
        return self.says["host"], self.says["port"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands, and in the end stops those that still run, side by side too."""
    running: list[Command] = []

    def start(*words: str, **options: Any) -> Command:
        running.append(Command(*words, folder=folder, **options))
        return running[-1]

    try:
        yield start
    finally:
        for command in running:
            command.process.terminate()
        for command in running:
            command.process.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    with commands(tmp_path) as starting:
        yield starting


@dataclass
class Site:
    tracker: Command
    here: Command
    arm: Command


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A tracker with a board of this machine, `here`, and an emulated one, `a72`."""
    with commands(tmp_path_factory.mktemp("site")) as start:
        tracker = start("tracker", "--port", "0")
        board = ["board", "--tracker", wire.show(tracker.address)]
        here, arm = start(*board, "--key", "here"), start(*board, "--key", "a72", "--emulate")
        registered(tracker.address, 2)
        yield Site(tracker, here, arm)


@pytest.fixture(scope="module")
def here(site: Site) -> tuple[Address, str]:
    return site.tracker.address, "here"


@pytest.fixture(scope="module")
def arm(site: Site) -> tuple[Address, str]:
    return site.tracker.address, "a72"


def eventually(what: Callable[[], Any], within_s: float = 60) -> Any:
    """The first true value of `what`."""
    end = time.monotonic() + within_s
    while not (value := what()):
        assert time.monotonic() < end, "It did not come about."
        time.sleep(0.05)
    return value


def registered(tracker: Address, count: int = 1) -> list[Any]:
    return eventually(lambda: len(boards := list_boards(tracker)) == count and boards)


def is_free(tracker: Address, key: str) -> bool:
    [board] = [board for board in list_boards(tracker) if board.key == key]
    return board.free


def link(output: str, objects: list[str], options: object = None) -> None:
    """What `export_library` calls to link: zig's linker, which needs no system libraries for this."""
    subprocess.run([sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-o", output, *objects], check=True)


def export(module: tvm.IRModule, path: Path, target: dict[str, str]) -> Path:
    tvm.compile(module, target=tvm.target.Target(target)).export_library(str(path), fcompile=link)
    return path


def unary(
    body: Callable[[Any], Any], shape: tuple[int, ...] = (64, 64), dtype: str = "float32"
) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor(shape, dtype))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(body(builder.emit(R.add(x, x)))))
    return builder.get()


def squared(x: np.ndarray) -> np.ndarray:
    return (x + x) @ (x + x)


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], Path]:
    """The library of a small network for a target."""
    folder = tmp_path_factory.mktemp("square")

    def of(target: dict[str, str]) -> Path:
        path = folder / f"square-{target.get('mcpu', 'host')}.so"
        return path if path.exists() else export(unary(lambda x: R.matmul(x, x)), path, target)

    return of


@T.prim_func(s_tir=True)
def endless(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
    """Half an hour, which no limit in these tests allows."""
    for _ in T.serial(T.int64(1) << T.int64(42)):
        with T.sblock("endless"):
            T.reads()
            T.writes()
            y[0] = y[0] * x[0] + T.float32(1)


@T.prim_func(s_tir=True)
def crashing(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
    for i in range(64):
        with T.sblock("crashing"):
            T.reads()
            T.writes()
            y[i] = x[T.int64(i) + (T.int64(1) << T.int64(40))]


def calling(kernel: Any) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((64,), "float32"))
    function = builder.add_func(kernel, "kernel")
    with builder.function("main", [x]):
        output = builder.emit(relax.call_tir(function, (x,), R.Tensor((64,), "float32")))
        builder.emit_func_output(output)
    return builder.get()


X = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")


def works(tracker: Address, key: str, library: Path) -> None:
    with client.session(tracker, key, wait_s=60, limit_s=60) as board:
        [y] = board.network(library).run([X])
    np.testing.assert_allclose(y, squared(X), rtol=1e-4, atol=1e-3)


def test_a_network_on_this_machine(here: tuple[Address, str], square: Callable[..., Path]) -> None:
    tracker, key = here
    with client.session(tracker, key, wait_s=60, limit_s=60) as board:
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
    local = arm64.run(square(A72), [[X]], timeout_s=60)[0][0]

    def once(number: int) -> tuple[Any, ...]:
        with client.session(tracker, "a72", wait_s=120, limit_s=60) as board:
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
    expected = arm64.run(artifact / "model.so", [[samples[:1]], [samples[1:]]], timeout_s=60)
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


def ask(conversation: Tracker, key: str) -> None:
    send(conversation.socket, [TrackerCode.REQUEST, key, "", 1])


def granted(conversation: Tracker) -> tuple[str, int, str]:
    (size,) = struct.unpack("<i", receive(conversation.socket, 4))
    code, value = json.loads(receive(conversation.socket, size))
    assert code == 0
    return value


def pending(tracker: Address, key: str) -> int:
    with contextlib.closing(Tracker(tracker)) as conversation:
        return conversation.ask([TrackerCode.SUMMARY])[1]["queue_info"][key]["pending"]


def test_two_hundred_requests_are_served_in_order(here: tuple[Address, str]) -> None:
    """Eight clients with 25 requests each, all asked before the first is served."""
    tracker, key = here
    clients = [Tracker(tracker) for _ in range(8)]
    rng = random.Random(0)
    order = [rng.randrange(8) for _ in range(200)]
    with client.session(tracker, key, wait_s=60, limit_s=60):
        for place, client in enumerate(order):
            ask(clients[client], key)
            # The tracker hears the connections in any order.
            eventually(lambda place=place: pending(tracker, key) > place)
    for client in order:
        ready, _, _ = select.select([c.socket for c in clients], [], [], 60)
        assert ready == [clients[client].socket]
        host, port, match_key = granted(clients[client])
        remote = tvm.rpc.connect(host, port, match_key, session_timeout=60)
        assert remote.get_function("rpc.test.addone")(1) == 2
        remote.get_function("CloseRPCConnection")()
    for conversation in clients:
        conversation.close()
    eventually(lambda: is_free(tracker, key))


def test_eight_clients_at_once(here: tuple[Address, str]) -> None:
    tracker, key = here

    def client(number: int) -> int:
        for _ in range(5):
            with client.session(tracker, key, wait_s=120, limit_s=60) as board:
                assert board.remote.get_function("rpc.test.addone")(number) == number + 1
        return number

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(client, range(8))) == list(range(8))


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
            client.session(address, "stock", wait_s=60, limit_s=60),
        ):
            pass
        info = {"key": "server:stock", "addr": [None, 9], "bibench": {"machine": "aarch64", "cores": "many"}}
        board.ask([TrackerCode.UPDATE_INFO, info])
        assert [board.key for board in list_boards(address)] == ["a72", "here"]


def test_a_board_that_is_busy(here: tuple[Address, str]) -> None:
    tracker, key = here
    with (
        client.session(tracker, key, wait_s=60, limit_s=60),
        pytest.raises(RemoteError, match=r"The only board with the key 'here' had other work for 0\.2 s\."),
        client.session(tracker, key, wait_s=0.2, limit_s=60),
    ):
        pass


def test_a_dead_client_frees_its_board(
    here: tuple[Address, str], tmp_path: Path, square: Callable[..., Path]
) -> None:
    """One that is killed in the middle of a kernel, and one that is killed before it came to the board."""
    tracker, key = here
    library = export(calling(endless), tmp_path / "endless.so", HOST)
    code = f"""
import numpy as np
from pathlib import Path
from rpc.client import session
with session({tracker!r}, {key!r}, wait_s=60, limit_s=300) as board:
    network = board.network(Path({str(library)!r}))
    print("running", flush=True)
    network.run([np.ones(64, "float32")])
"""
    client = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert client.stdout and client.stdout.readline() == b"running\n"
    time.sleep(0.2)
    client.kill()
    client.wait()
    works(tracker, key, square(HOST))

    with contextlib.closing(Tracker(tracker)) as conversation:
        ask(conversation, key)
        granted(conversation)
    works(tracker, key, square(HOST))


@pytest.mark.parametrize("where", ["here", "arm"])
def test_a_kernel_that_hangs_or_crashes(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, square: Callable[..., Path]
) -> None:
    tracker, key = request.getfixturevalue(where)
    target = HOST if where == "here" else A72
    x = np.ones(64, "float32")

    def run(library: Path, limit_s: float) -> None:
        with client.session(tracker, key, wait_s=60, limit_s=limit_s) as board:
            board.network(library).run([x])

    hanging = export(calling(endless), tmp_path / "endless.so", target)
    with pytest.raises(RemoteError, match=r"The board ended the session after its limit of 3 s\."):
        run(hanging, 3)
    works(tracker, key, square(target))
    crash = export(calling(crashing), tmp_path / "crash.so", target)
    with pytest.raises(RemoteError, match="died of SIGSEGV: it reached for memory that is not its own"):
        run(crash, 60)
    works(tracker, key, square(target))


def test_instructions_that_the_processor_lacks(
    arm: tuple[Address, str], tmp_path: Path, square: Callable[..., Path]
) -> None:
    library = export(unary(lambda x: R.add(x, x), (64,), "float16"), tmp_path / "half.so", A76)
    with client.session(*arm, wait_s=60, limit_s=60) as board:
        network = board.network(library)
        with pytest.raises(RemoteError, match="died of SIGILL: it used an instruction that this processor"):
            network.run([np.ones(64, "float16")])
    works(*arm, square(A72))


@pytest.mark.parametrize("where", ["here", "arm"])
def test_what_is_no_library_for_this_board(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, square: Callable[..., Path]
) -> None:
    tracker, key = request.getfixturevalue(where)
    other = square(A72 if where == "here" else HOST)
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"not a library")
    for library in other, garbage:
        with (
            client.session(tracker, key, wait_s=60, limit_s=60) as board,
            pytest.raises(RemoteError, match=f"loading {library} failed: .+"),
        ):
            board.network(library)
    works(tracker, key, square(HOST if where == "here" else A72))


def test_an_upload_that_is_damaged_on_its_way(here: tuple[Address, str], square: Callable[..., Path]) -> None:
    with client.session(*here, wait_s=60, limit_s=60) as board:
        send = board.remote.upload

        def damage(content: bytearray, name: str) -> None:
            content = bytearray(content)
            content[1000] ^= 1
            send(content, name)

        board.remote.upload = damage
        with pytest.raises(RemoteError, match="was damaged on its way to the board 'here'"):
            board.network(square(HOST))
        board.remote.upload = send
        board.network(square(HOST))


def test_a_full_disk(
    site: Site, start: Callable[..., Command], square: Callable[..., Path], tmp_path: Path
) -> None:
    tracker = site.tracker.address
    words = ["board", "--tracker", wire.show(tracker), "--emulate"]
    start(*words, "--key", "small", max_file_bytes=1 << 20)
    registered(tracker, 3)
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 21))
    with (
        client.session(tracker, "small", wait_s=60, limit_s=60) as board,
        pytest.raises(RemoteError, match="Of the 2097152 bytes of .*, .* kept 1048576: its disk is full"),
    ):
        board.upload(large)
    works(tracker, "small", square(A72))


def test_a_tracker_that_goes_away(start: Callable[..., Command], square: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    first = start("tracker", "--port", port)
    tracker = first.address
    board = start("board", "--tracker", wire.show(tracker), "--key", "here")
    registered(tracker)
    with client.session(tracker, "here", wait_s=60, limit_s=60) as held:
        first.process.kill()
        first.process.wait()
        with (
            pytest.raises(RemoteError, match=f"There is no tracker at 127.0.0.1:{port}: connection refused"),
            client.session(tracker, "here", wait_s=60, limit_s=60),
        ):
            pass
        held.network(square(HOST)).run([X])  # who has a board needs no tracker
    eventually(lambda: "Trying again every" in board.log.read_text())
    assert start("tracker", "--port", port).says
    registered(tracker)
    works(tracker, "here", square(HOST))


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


def test_nothing_is_left_over(start: Callable[..., Command]) -> None:
    """Of commands that are stopped while clients have their boards, by SIGTERM and by Ctrl-C."""
    tracker = start("tracker", "--port", "0")
    words = ["board", "--tracker", wire.show(tracker.address), "--key"]
    boards = [start(*words, "here"), start(*words, "a72", "--emulate")]
    registered(tracker.address, 2)
    with (
        client.session(tracker.address, "here", wait_s=60, limit_s=60),
        client.session(tracker.address, "a72", wait_s=60, limit_s=60),
    ):
        children = [psutil.Process(board.process.pid).children(recursive=True) for board in boards]
        assert [len(processes) for processes in children] == [1, 1]
        assert len(list(tracker.temporary.iterdir())) == 2
        stops = zip([*boards, tracker], [signal.SIGTERM, signal.SIGINT, signal.SIGINT], strict=True)
        assert [command.stop(number) for command, number in stops] == [0, 0, 0]
        assert not any(child.is_running() for [child] in children)
        assert list(tracker.temporary.iterdir()) == []


def test_a_board_that_is_killed_takes_its_session_with_it(site: Site, start: Callable[..., Command]) -> None:
    tracker = site.tracker.address
    board = start("board", "--tracker", wire.show(tracker), "--key", "k")
    registered(tracker, 3)
    with client.session(tracker, "k", wait_s=60, limit_s=60):
        [child] = psutil.Process(board.process.pid).children()
        board.process.kill()
        board.process.wait()
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    [left] = board.temporary.iterdir()
    os.utime(left, (0, 0))
    start("board", "--tracker", "127.0.0.1:1", "--key", "k")
    eventually(lambda: not left.exists())
    eventually(lambda: len(list(board.temporary.iterdir())) == 1)
    registered(tracker, 2)


def test_garbage_neither_kills_nor_blocks(site: Site, square: Callable[..., Path]) -> None:
    rng = random.Random(0)
    sent = [rng.randbytes(size) for size in (1, 3, 4, 5, 100, 10_000)]
    for magic in RPC_MAGIC, RPC_TRACKER_MAGIC:
        begun = struct.pack("<i", magic)
        sent += [begun, begun + b"\xff\xff\xff\x7f", begun + b"\xff\xff\xff\xff" + bytes(100)]
        sent += [
            begun + struct.pack("<i", len(words)) + words
            for words in (b"client:here:0.5", b"\xff\xfe", b"[9]")
        ]
    with contextlib.ExitStack() as stack:
        for address in site.tracker.address, site.here.address:
            for part in sent * 10:
                connection = stack.enter_context(socket.create_connection(address, timeout=10))
                with contextlib.suppress(OSError):
                    connection.sendall(part)
        for words in b"{", b"[3]", b'[4, [], "", "x"]', b"[" * 100_000, b"\xff", b'[3, "here", ["x", "y"]]':
            with contextlib.closing(Tracker(site.tracker.address)) as stranger:
                stranger.socket.sendall(struct.pack("<i", len(words)) + words)
        works(site.tracker.address, "here", square(HOST))
    assert "Traceback" not in site.here.log.read_text() + site.tracker.log.read_text()
    assert site.here.process.poll() is None and site.tracker.process.poll() is None


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
