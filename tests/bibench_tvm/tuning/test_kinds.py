"""Every kind of kernel that is tuned, from a network to records and back to an artifact."""

import contextlib
import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from bibench_tvm.compiling.compiler import compile_model
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import import_model
from bibench_tvm.tuning.boards import Boards, boards_of
from bibench_tvm.tuning.builder import builder
from bibench_tvm.tuning.search import Search, subjects_of
from bibench_tvm.tuning.trials import open_trials
from bibench_tvm.tuning.tuner import lowered_to_tune
from relay_passes.kernels.kernel import Tunable
from rpc.session import local_board
from schedules.records import records
from schedules.records.choices import CHOICES
from schedules.records.digest import digest
from schedules.records.records import Record, Records
from tests.bibench_tvm.tuning.every_kind import every_kind

FLOAT_KINDS = {"float_depthwise_convolution", "winograd_of_input", "winograd_inside"}
INT8_KINDS = {"int8_convolution", "int8_depthwise_convolution"}


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("every_kind") / "every_kind.pt2"
    torch.export.save(torch.export.export(*every_kind()), path)
    return path


def tunables(path: Path, on: str, *, int8: bool) -> list[Tunable[Any]]:
    return list(
        lowered_to_tune(import_model(path), resolve_target(on), "int8" if int8 else "float32").tunable
    )


@contextlib.contextmanager
def board_of_this_machine() -> Iterator[Boards]:
    with local_board() as place, boards_of(*place) as boards:
        yield boards


def test_a_network_has_them_all(network_file: Path) -> None:
    kinds = {t.task.kind for int8 in (False, True) for t in tunables(network_file, "host", int8=int8)}
    assert kinds == set(CHOICES)
    inside = {t.task.kind for t in tunables(network_file, "host", int8=True)}
    assert inside.isdisjoint(FLOAT_KINDS) and inside >= INT8_KINDS


@pytest.mark.parametrize("float_layers", ["float32", "int8"])
def test_a_search_finds_what_is_right_and_names_it(
    network_file: Path, tmp_path: Path, command: Any, float_layers: str
) -> None:
    kinds = len(tunables(network_file, "host", int8=float_layers == "int8"))
    options = ["--trials", 2 * kinds, "--float-layers", float_layers, "--out", tmp_path, "--json"]
    done = command("tune", network_file, *options)
    assert done.code == 0, done.stderr
    found = done.json
    assert not any(kernel["failed"] for kernel in found["kernels"])
    assert found["trials"] == 2 * kinds and all(kernel["trials"] for kernel in found["kernels"])
    titles = " ".join(kernel["kernel"] for kernel in found["kernels"])
    named = ["2 binary products, 24x20 by 20x24", "packing of planes, 24x9x9 to bits", "maximum 2x2 / 2x2"]
    named += ["int8 3x3, 32x32x3 to 64", "int8 depthwise 3x3"] * (float_layers == "int8")
    assert all(name in titles for name in named), titles
    with contextlib.closing(sqlite3.connect(tmp_path / "trials.sqlite")) as database:
        reasons = [reason for (reason,) in database.execute("SELECT reason FROM comparisons")]
    assert not any("something else" in reason for reason in reasons)
    written = records.read(tmp_path / records.FILE)
    kept = {kernel["kernel"] for kernel in found["kernels"] if kernel["record"]}
    assert len(kept) <= len(written.best)


@pytest.mark.parametrize(("float_layers", "seed"), [("float32", 1), ("int8", 2)])
def test_compile_takes_a_record_of_every_kind_and_stays_exact(
    network_file: Path, tmp_path: Path, float_layers: str, seed: int
) -> None:
    target = resolve_target("host")
    best, pick = {}, random.Random(seed)
    for tunable in tunables(network_file, "host", int8=float_layers == "int8"):
        if pool := tunable.task.candidates(target.kernels)[1:]:
            chosen = pick.choice(pool)
            best[tunable.task.key] = Record(chosen, 1, 2, digest(tunable.task, chosen, target.kernels))
    made = Records(target.processor, "seconds", "By hand.", best)
    (tmp_path / records.FILE).write_text(made.to_json())
    assert records.read(tmp_path / records.FILE) == made
    artifact = compile_model(
        network_file,
        target="host",
        out=tmp_path / "out",
        tuned=tmp_path,
        verify=2,
        float_layers=float_layers,
    )
    manifest = artifact.manifest
    assert manifest["verification"]["integers_exact"] is True, manifest["verification"]
    used = manifest["tuning"]["records"]
    assert {json.dumps(u["task"], sort_keys=True, separators=(",", ":")) for u in used} == set(best)
    assert all(u["tile"] in [asdict(r.tile) for r in best.values()] for u in used)
    assert manifest["notes"] == []


def nothing(like: tirx.PrimFunc) -> tirx.PrimFunc:
    """Of the same parameters, and faster than any: it writes one number."""
    with IRBuilder() as ir, T.prim_func(is_private=True, s_tir=True):
        buffers = [T.arg(p.name, T.buffer([int(e) for e in p.shape], str(p.dtype))) for p in like.params]
        with T.sblock("root"):
            out = buffers[-1]
            T.buffer_store(out, tirx.const(0, out.dtype), [0] * len(out.shape))
    return ir.get()


def test_a_candidate_that_computes_something_else_is_no_record(network_file: Path, tmp_path: Path) -> None:
    """Of each kind, however fast it is."""
    target = resolve_target("host")
    subjects = {}
    for int8 in (False, True):
        for subject in subjects_of(tunables(network_file, "host", int8=int8), target):
            subjects.setdefault(subject.task.kind, subject)
    assert set(subjects) == set(CHOICES)

    def broken(tunable: Tunable[Any]) -> Tunable[Any]:
        default = tunable.task.candidates(target.kernels)[0]

        def make(choice: Any) -> Any:
            kernel, arguments = tunable.make(choice)
            return (kernel if choice == default else nothing(kernel)), arguments

        return Tunable(tunable.task, make)

    for subject in subjects.values():
        subject.tunable, subject.pool = broken(subject.tunable), subject.pool[:2]
    processor = target.processor
    with (
        board_of_this_machine() as boards,
        open_trials(tmp_path, processor, target.kernels, "seconds", 0) as kept,
        builder(target.tvm) as compiler,
    ):
        every = list(subjects.values())
        search = Search(every, target, kept, boards, compiler, seed=0, report=lambda progress: None)
        search.run(2 * len(every))
        assert search.compare() == {}
        for subject in every:
            result = kept.find_comparison(subject.task, subject.pool[1])
            assert result and "something else" in result.reason, subject.task.title
