"""`python -m bibench_tvm.tune [MODEL] --board KEY --trials N --out DIR`: better schedules, found by trial."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_tvm.cli.console import (
    AsJson,
    Debug,
    Tracker,
    print_json,
    refuse_tracker_alone,
    reporting,
    results,
    run_command,
    stderr,
)
from bibench_tvm.cli.errors import BibenchError, UsageError, unknown
from bibench_tvm.compile import Algorithm, Arch, Checkpoint, FloatLayers, InputShape, Model, Variant

if TYPE_CHECKING:
    from rich.console import Console

    from bibench_tvm.compiling.processors import CompileTarget
    from bibench_tvm.tuning.boards import Boards
    from bibench_tvm.tuning.search import Progress
    from bibench_tvm.tuning.tuner import Tuned

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Of instructions and modelled cycles, millions are shown.
_SHOWN = {
    "seconds": (1e3, "ms"),
    "instructions": (1e-6, "M instr."),
    "model cycles": (1e-6, "M model cycles"),
}


@app.command()
def tune(
    out: Annotated[Path, typer.Option(help="The folder for trials and records; goes on with those there.")],
    model: Model = None,
    trials: Annotated[
        int, typer.Option(max=1_000_000, help="How many, those of earlier runs in --out included.")
    ] = 200,
    target: Annotated[
        str, typer.Option(help="As compile's. Left out: what the boards say they are, or this machine.")
    ] = "",
    board: Annotated[
        str | None,
        typer.Option(
            help="The key of the boards, or adb:SERIAL or ssh:HOST. Left out: this machine, or one emulated."
        ),
    ] = None,
    tracker: Tracker = "",
    model_cycles: Annotated[
        bool, typer.Option(help="On an emulated board: weigh instructions with llvm-mca's cycles.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Another seed tries other candidates.")] = 0,
    arch: Arch = None,
    algorithm: Algorithm = None,
    variant: Variant = None,
    checkpoint: Checkpoint = None,
    input_shape: InputShape = None,
    float_layers: FloatLayers = "float32",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find better schedules for the kernels of a network, by measuring candidates on boards.

    Stopped in any way, it goes on with the same command. compile --tuned DIR uses what it found.
    """
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.compiling.compiler import FLOAT_LAYERS
        from bibench_tvm.compiling.processors import resolve_target
        from bibench_tvm.importer.source import named
        from bibench_tvm.tuning.tuner import tune_network
        from rpc.missing import need

        if trials < 1:
            raise UsageError(f"--trials {trials} makes no sense: it is how many candidates are measured.")
        if float_layers not in FLOAT_LAYERS:
            raise unknown("arithmetic of float layers", float_layers, FLOAT_LAYERS)
        refuse_tracker_alone(tracker, board)
        need("xgboost", "psutil", "ziglang")
        resolved = resolve_target(target or (_target_of(board, tracker) if board else "host"))
        network = named(model, checkpoint, arch, algorithm, variant, input_shape or [])
        with _boards(resolved, board, tracker) as boards:
            found = tune_network(
                network,
                resolved,
                boards,
                trials=trials,
                seed=seed,
                out=out,
                model_cycles=model_cycles,
                float_layers=float_layers,
                report=_report,
            )
        _summary(found, results(as_json))
        if as_json:
            print_json(_json(found))


def _target_of(key: str, tracker: str) -> str:
    """The target that the boards of a key are, as far as it has a name."""
    from bibench_tvm.compiling.processors import name_of
    from rpc.devices.device import describe
    from rpc.listing import is_device
    from rpc.session import RemoteError, list_boards, tracker_address

    try:
        known = [describe(key)] if is_device(key) else list_boards(tracker_address(tracker))
    except RemoteError as error:
        raise BibenchError(str(error)) from error
    found = {(info.machine, info.cpu) for info in known if info.key == key}
    if not found:
        return "host"  # whoever asks for the board says which there are
    names = {name_of(*kind) for kind in found}
    if len(names) != 1 or None in names:
        said = ", ".join(sorted(f"{cpu} ({machine})" for machine, cpu in found))
        raise UsageError(f"The boards {key!r} are {said}: say with --target what to compile for.")
    (name,) = names
    stderr.print(f"The target is {name}, as the boards are.")
    return str(name)


@contextlib.contextmanager
def _boards(target: CompileTarget, key: str | None, tracker: str) -> Iterator[Boards]:
    """Where the boards are; without a key, this machine is one, or emulates one."""
    from bibench_tvm.tuning.boards import boards_of, device_of
    from rpc import session
    from rpc.listing import is_device

    if key is not None:
        with device_of(key) if is_device(key) else boards_of(session.tracker_address(tracker), key) as found:
            yield found
        return
    emulate = None
    if not target.is_host:
        if not target.emulated_cpu or target.machine != "aarch64":
            raise UsageError(f"{target.name} cannot be emulated here: give --board KEY.")
        emulate = target.emulated_cpu
        stderr.print(f"Without --board, the board is an emulated {emulate}: instructions count, not time.")
    # One thread times a kernel with the least noise; whoever wants more says so.
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    with session.local_board(emulate=emulate) as place, boards_of(*place) as found:
        yield found


def _report(unit: str, progress: Progress) -> None:
    """A line for each batch."""
    subject = progress.subject
    left = progress.seconds_left
    words = [
        f"{progress.trials:4} trials",
        subject.task.title,
        f"best {_cost(subject.best.cost, unit)}",
        f"default {_cost(subject.default.cost, unit)}",
        f"TVM's own {_cost(subject.library.cost, unit)}" if subject.library.cost else "",
        "" if left is None else f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left",
    ]
    stderr.print("  ".join(filter(None, words)), soft_wrap=True)


def _cost(cost: float | None, unit: str) -> str:
    factor, name = _SHOWN[unit]
    return "failed" if cost is None else f"{cost * factor:,.4g} {name}"


def _summary(found: Tuned, console: Console) -> None:
    from rich.table import Table

    _, name = _SHOWN[found.unit]
    table = Table(title=f"One call, {name}", box=None, pad_edge=False)
    for column in ("kernel", "calls", "trials", "default", "tuned", "ratio", "TVM's own"):
        table.add_column(column, justify="left" if column == "kernel" else "right")
    for subject in found.subjects:
        if not subject.found:
            continue
        record = found.records.get(subject.task.key)
        numbers = [record.default_cost, record.cost] if record else [subject.default.cost, None]
        shown = [_cost(c, found.unit).removesuffix(name).strip() if c else "" for c in numbers]
        ratio = f"{record.cost / record.default_cost:.3f}" if record else "default kept"
        own = _cost(subject.library.cost, found.unit).removesuffix(name).strip()
        table.add_row(
            subject.task.title,
            str(subject.calls),
            str(len(subject.found)),
            *shown,
            ratio,
            own if subject.library.cost else "",
        )
    console.print(table)
    unreached = sum(len(subject.found) < 2 for subject in found.subjects)
    if unreached:
        console.print(
            f"{unreached} of {len(found.subjects)} kernels have had no trial but their default, which is the "
            "first of each: a larger --trials goes on."
        )
    failed = sum(m.cost is None for s in found.subjects for m in s.found.values())
    words = f" {failed} candidates failed and were passed over." if failed else ""
    console.print(
        f"{found.trials} trials, {found.measured} of them measured now.{words} "
        f"{len(found.records)} kernels have something better than the default."
    )
    stderr.print(f"Written to {found.path}", soft_wrap=True)


def _json(found: Tuned) -> dict[str, Any]:
    kernels = []
    for subject in found.subjects:
        record = found.records.get(subject.task.key)
        kernels.append(
            {
                "kernel": subject.task.title,
                "calls": subject.calls,
                "trials": len(subject.found),
                "failed": {
                    json.dumps(asdict(t)): m.reason for t, m in subject.found.items() if m.cost is None
                },
                "default": subject.default.cost if subject.found else None,
                "library": subject.library.cost,
                "record": asdict(record) if record else None,
            }
        )
    return {
        "unit": found.unit,
        "trials": found.trials,
        "measured": found.measured,
        "kernels": kernels,
        "path": str(found.path),
    }


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.tune")
