"""Tuning: what is measured is kept, and whatever fails on the way costs no more than itself."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from bibench_tvm import BibenchError, compile_model
from bibench_tvm.artifact.artifact import load
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import import_model
from bibench_tvm.tuning import tuner
from bibench_tvm.tuning.boards import Boards, boards_of, device_of
from bibench_tvm.tuning.builder import builder
from bibench_tvm.tuning.search import Search, subjects_of
from bibench_tvm.tuning.trials import LIBRARY, open_trials
from relay_passes import lower
from relay_passes.kernels.kernel import Tunable
from rpc import machine
from rpc.listing import BoardInfo
from rpc.session import local_board
from schedules.records import records
from schedules.records.digest import digest
from schedules.records.kinds.tiled import TiledTask
from schedules.records.records import Processor, Record, Records
from schedules.targets import Tile
from tests.rpc.devices.stand_in import SERIAL


def trials_in(folder: Path) -> list[tuple[Any, ...]]:
    """(task, tile, cost, when) of every candidate that was measured."""
    if not (folder / "trials.sqlite").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "trials.sqlite")) as database:
        try:
            query = "SELECT task, tile, cost, measured_at FROM trials WHERE tile != ?"
            return database.execute(query, (LIBRARY,)).fetchall()
        except sqlite3.OperationalError:  # no table yet
            return []


def started(name: str, *arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", f"bibench_tvm.{name}", *map(str, arguments), "--json"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, "it ended too early"
        time.sleep(0.05)


def test_killed_it_goes_on_and_measures_nothing_twice(small_file: Path, tmp_path: Path) -> None:
    command = ["tune", small_file, "--trials", 10, "--out", tmp_path / "out"]
    process = started(*command)
    until(lambda: len(trials_in(tmp_path / "out")) >= 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = trials_in(tmp_path / "out")
    assert 3 <= len(before) < 10
    process = started(*command)
    report = json.loads(process.communicate()[0])
    after = trials_in(tmp_path / "out")
    assert set(before) <= set(after) and len(after) == 10
    assert (report["trials"], report["measured"]) == (10, 10 - len(before))
    assert len({row[:2] for row in after}) == 10
    assert report["unit"] == "seconds"
    waking = records.read(tmp_path / "out" / records.FILE).wake_ns
    assert waking and waking > 0 if machine.processors() > 1 else waking is None


def test_too_few_trials_are_told_at_once(small_file: Path, tmp_path: Path, command: Callable) -> None:
    done = command("tune", small_file, "--trials", 1, "--out", tmp_path / "out", "--json")
    assert len(done.json["kernels"]) == done.json["trials"] == 1
    note = (
        "Note: --trials 1 is too few to try anything: the first trial is the default. 2 are enough for one "
        "candidate, 9 for a batch of them."
    )
    said = done.stderr.splitlines()
    assert said.index(note) < next(i for i, line in enumerate(said) if "1 trials" in line)
    done = command("tune", small_file, "--trials", 2, "--out", tmp_path / "out", "--json")
    assert done.json["trials"] == 2 and "too few" not in done.stderr


def test_trials_that_cannot_be_kept_are_a_sentence(tmp_path: Path) -> None:
    kernels = resolve_target("host").kernels
    folder = open_trials(tmp_path, Processor(kernels.name, "cpu"), kernels, "seconds", 0)
    sentence = r"The trials in .* cannot be kept: attempt to write a readonly"
    with pytest.raises(BibenchError, match=sentence), folder as kept:
        kept._database.execute("PRAGMA query_only = 1")
        kept.add_network("net")


def test_what_threads_share_is_by_what_a_second_one_costs(small: torch.nn.Module, tmp_path: Path) -> None:
    def shared(wake_ns: float) -> int:
        found = Records(resolve_target("host").processor, "seconds", "By hand.", {}, wake_ns)
        (tmp_path / records.FILE).write_text(found.to_json())
        example = torch.zeros(1, 4, 8, 8)
        return compile_model(
            small, example, target="host", out=tmp_path / "out", tuned=tmp_path
        ).record.shared_kernels

    assert shared(1e9) == 0 < shared(1)


def test_a_folder_of_another_target_or_another_tuning_is_refused(
    small_file: Path, tmp_path: Path, command: Callable
) -> None:
    kernels = resolve_target("host").kernels
    with open_trials(tmp_path, Processor(kernels.name, "znver99"), kernels, "seconds", 0):
        done = command("tune", small_file, "--trials", 1, "--out", tmp_path)
        assert done.code == 2 and "Another tuning is working" in done.stderr
    done = command("tune", small_file, "--trials", 1, "--out", tmp_path)
    assert done.code == 2 and "Give another --out" in done.stderr and "znver99" in done.stderr


def test_no_tracker_and_no_board_are_sentences(small_file: Path, tmp_path: Path, command: Callable) -> None:
    done = command("tune", small_file, "--out", tmp_path, "--board", "pi", "--tracker", "127.0.0.1:9")
    assert done.code == 1 and "127.0.0.1:9" in done.stderr
    with local_board() as ((host, port), _):
        done = command("tune", small_file, "--out", tmp_path, "--board", "pi", "--tracker", f"{host}:{port}")
        assert done.code == 1 and "no board 'pi'; its boards are: 'local'" in done.stderr
        options = ["--board", "local", "--tracker", f"{host}:{port}", "--target", "rpi4b"]
        done = command("tune", small_file, "--out", tmp_path, *options)
        assert done.code == 2 and "is x86_64, and rpi4b is aarch64" in done.stderr


@pytest.fixture
def two_boards() -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    with contextlib.ExitStack() as stack:

        def serving(*line: object) -> tuple[subprocess.Popen[str], dict]:
            process = started(*line)
            stack.callback(process.communicate)
            stack.callback(lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL))
            text = ""
            while not text.endswith("}\n"):
                text += process.stdout.readline()  # type: ignore[union-attr]
            return process, json.loads(text)

        _, where = serving("tracker", "--port", 0)
        address = f"{where['host']}:{where['port']}"
        yield address, [serving("board", "--tracker", address, "--key", "twin")[0] for _ in range(2)]


def test_one_of_two_boards_is_killed(small_file: Path, tmp_path: Path, two_boards: Any) -> None:
    address, processes = two_boards
    out = tmp_path / "out"
    process = started(
        "tune", small_file, "--trials", 14, "--out", out, "--board", "twin", "--tracker", address
    )
    until(lambda: len(trials_in(out)) >= 5, process)
    os.killpg(processes[0].pid, signal.SIGKILL)
    report = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert report["trials"] == len(trials_in(out)) == 14
    assert not any(kernel["failed"] for kernel in report["kernels"])


def bad_kernel(like: tirx.PrimFunc, how: str) -> tirx.PrimFunc:
    """Of the same parameters; it lacks a function, writes where nothing is, or hangs."""
    with IRBuilder() as ir, T.prim_func(is_private=True, s_tir=True):
        buffers = [T.arg(p.name, T.buffer([int(e) for e in p.shape], str(p.dtype))) for p in like.params]
        with T.sblock("root"):
            out = buffers[-1]
            first = [0] * len(out.shape)
            if how == "lacks":
                T.evaluate(tirx.call_extern("int32", "no_such_function"))
            elif how == "crashes":
                T.buffer_store(out, tirx.const(1, out.dtype), [*first[:-1], tirx.const(1 << 44, "int64")])
            else:
                T.buffer_store(out, tirx.const(1, out.dtype), first)
                with T.While(out[tuple(first)] != tirx.const(0, out.dtype)):
                    T.buffer_store(out, tirx.const(1, out.dtype), first)
    return ir.get()


@contextlib.contextmanager
def board_of_this_machine() -> Iterator[Boards]:
    with local_board() as place, boards_of(*place, limit_s=2) as boards:
        yield boards


@pytest.mark.parametrize("on", ["host", "arm_cpu"])
def test_candidates_that_do_not_build_hang_or_crash_are_passed_over(
    small: Any, phone: Path, tmp_path: Path, on: str
) -> None:
    """On a board, and on a phone without TVM."""
    target = resolve_target(on)
    imported = import_model(small, example_inputs=torch.zeros(1, 4, 8, 8))
    [binary] = [
        t
        for t in lower(imported.module, imported.layer_names, target.kernels).tunable
        if isinstance(t.task, TiledTask) and t.task.packing
    ]
    default, *others = binary.task.candidates(target.kernels)
    bad = dict(zip(others, ("lacks", "hangs", "crashes"), strict=False))
    fine = others[3]

    def make(tile: Tile) -> Any:
        kernel, arguments = binary.make(tile)
        return (bad_kernel(kernel, bad[tile]) if tile in bad else kernel), arguments

    [subject] = subjects_of([Tunable(binary.task, make)], target)
    subject.pool = [default, *bad, fine]
    processor = Processor(target.kernels.name, target.cpu)
    with (
        board_of_this_machine() if on == "host" else device_of(SERIAL, limit_s=3) as boards,
        open_trials(tmp_path / "out", processor, target.kernels, "seconds", 0) as kept,
        builder(target.tvm) as compiler,
    ):
        search = Search([subject], target, kept, boards, compiler, seed=0, report=lambda progress: None)
        search.run(5)
        search.compare()
        found = {tile: kept.find(binary.task, tile) for tile in subject.pool}
    assert found[default].cost and found[fine].cost
    assert all(found[tile].cost is None for tile in bad)
    reasons = {how: found[tile].reason for tile, how in bad.items()}
    assert "no_such_function" in reasons["lacks"] and reasons["hangs"] and reasons["crashes"]


def test_a_compiler_that_does_not_end_is_stopped(small: Any, tmp_path: Path) -> None:
    from bibench_tvm.tuning.builder import BuildFailed

    target = resolve_target("host")
    imported = import_model(small, example_inputs=torch.zeros(1, 4, 8, 8))
    tunable = lower(imported.module, imported.layer_names, target.kernels).tunable[0]
    kernel = tunable.make(tunable.task.default(target.kernels))[0]
    slow = pytest.raises(BuildFailed, match=r"did not end within 0.001 seconds")
    with builder(target.tvm, limit_s=0.001) as compiler, slow:
        compiler.build(kernel, tmp_path / "kernel.so", "popcounts")
    with builder(target.tvm) as compiler:
        with pytest.raises(BuildFailed, match="does not compile"):
            compiler.build(kernel, tmp_path / "nowhere" / "kernel.so", "popcounts")
        assert compiler.build(kernel, tmp_path / "kernel.so", "popcounts") == 1
        assert (tmp_path / "kernel.so").exists()


def test_two_runs_on_an_emulated_board_agree_to_the_digit(
    small_file: Path, tmp_path: Path, command: Callable
) -> None:
    found = []
    for out in (tmp_path / "one", tmp_path / "two"):
        done = command("tune", small_file, "--target", "rpi4b", "--trials", 12, "--out", out, "--json")
        assert done.code == 0, done.stderr
        assert done.json["unit"] == "model cycles"
        found.append(([row[:3] for row in trials_in(out)], (out / records.FILE).read_text()))
    assert found[0] == found[1]
    written = records.read(tmp_path / "one" / records.FILE)
    assert "a model, not a time" in written.obtained and written.best
    with contextlib.closing(sqlite3.connect(tmp_path / "one" / "trials.sqlite")) as database:
        for task, record in written.best.items():
            query = "SELECT tile, instructions FROM trials WHERE task = ? AND tile != ? ORDER BY rowid"
            counts = dict(database.execute(query, (task, LIBRARY)))
            default = next(iter(counts.values()))
            assert counts[json.dumps(asdict(record.tile), sort_keys=True)] <= default


def test_without_llvm_mca_the_line_to_type_is_said_and_instructions_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    board = BoardInfo("arm", ("127.0.0.1", 1), emulated=True, cpu="cortex-a72", machine="aarch64")
    assert tuner._unit([board], resolve_target("rpi4b"), True) == "model cycles"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("PATH", "")
    assert tuner._unit([board], resolve_target("rpi4b"), True) == "instructions"
    told = " ".join(capsys.readouterr().err.split())
    assert "llvm-mca, version 19 or newer, is not installed. Type: " in told
    assert told.endswith("apt-get install -y --no-install-recommends llvm-19")


@pytest.mark.parametrize("target", ["host", "rpi4b"])
def test_compile_uses_the_records_and_stays_exact(
    small_file: Path, board: None, tmp_path: Path, invoke: Callable, target: str
) -> None:
    resolved = resolve_target(target)
    imported = import_model(small_file)
    tunable = lower(imported.module, imported.layer_names, resolved.kernels).tunable
    best = {}
    for task, pool in ((t.task, t.task.candidates(resolved.kernels)[1:]) for t in tunable):
        if pool:
            tile = random.Random(3).choice(pool)
            best[task.key] = Record(tile, 1, 2, digest(task, tile, resolved.kernels))
    written = Records(Processor(resolved.kernels.name, resolved.cpu), "seconds", "By hand.", best)
    (tmp_path / records.FILE).write_text(written.to_json())
    line = ["compile", small_file, "--target", target, "--out", tmp_path / "out", "--verify", 2]
    done = invoke(*line, "--tuned", tmp_path, "--json")
    assert done.code == 0, done.stderr
    manifest = load(tmp_path / "out").manifest
    assert manifest["verification"]["integers_exact"] is True
    used = manifest["tuning"]["records"]
    assert len(used) == len(best) >= 1
    assert all(u["tile"] in [asdict(r.tile) for r in best.values()] for u in used)
    assert manifest["notes"] == []
    changed = dict(best) | {key: replace(best[key], kernel="0123456789abcdef") for key in list(best)[:1]}
    (tmp_path / records.FILE).write_text(replace(written, best=changed).to_json())
    done = invoke(*line, "--tuned", tmp_path, "--json")
    assert done.code == 0, done.stderr
    assert len(load(tmp_path / "out").manifest["tuning"]["records"]) == len(best) - 1
    assert "1 record of " in done.stderr and "the kernels have changed" in " ".join(done.stderr.split())
    other = "rpi4b" if target == "host" else "rpi3b+"
    done = invoke("compile", small_file, "--target", other, "--out", tmp_path / "o", "--tuned", tmp_path)
    assert done.code == 2 and "and not for" in done.stderr
