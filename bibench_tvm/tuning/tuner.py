"""From a network and some boards to a folder with trials and records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bibench_tvm.cli.console import phase, stderr
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.cli.whole_file import whole_file
from bibench_tvm.compiling.processors import CompileTarget, no_half
from bibench_tvm.importer import Imported
from bibench_tvm.importer.source import Network
from bibench_tvm.tuning import inner_loop
from bibench_tvm.tuning.boards import Boards
from bibench_tvm.tuning.builder import builder
from bibench_tvm.tuning.grain import wake_ns
from bibench_tvm.tuning.search import BATCH, Progress, Search, Subject, subjects_of
from bibench_tvm.tuning.trials import Trials, open_trials
from relay_passes import Lowered, lower
from rpc.session import BoardInfo
from schedules.records import records
from schedules.records.records import Record, Records


@dataclass(frozen=True)
class Tuned:
    """What a tuning came to. measured: trials of this run, the others were there before."""

    unit: str
    trials: int
    measured: int
    subjects: list[Subject]
    records: dict[str, Record]
    path: Path


def tune_network(
    network: Network,
    target: CompileTarget,
    boards: Boards,
    *,
    trials: int,
    seed: int,
    out: Path,
    model_cycles: bool,
    float_layers: str = "float32",
    report: Callable[[str, Progress], None],
) -> Tuned:
    """model_cycles: where instructions are counted, weigh them with llvm-mca's cycles. float_layers: how
    those are computed, as of `compile_model`. report: gets the unit, and how it stands.

    Raises BibenchError, ValueError: a sentence. Every trial that was measured is kept.
    """
    listed = boards.listed()
    unit = _unit(listed, target, model_cycles)
    processor = target.processor
    with open_trials(out, processor, target.kernels, unit, seed) as kept:
        with phase("importing"):
            imported = network.load()
            lowered = lowered_to_tune(imported, target, float_layers)
        subjects = subjects_of(lowered.tunable, target)
        if not subjects:
            raise UsageError("The network has no kernel whose schedule could be chosen.")
        if trials <= len(subjects):
            _say_too_few(trials, len(subjects))
        cpu = target.scheduled_for if unit == "model cycles" else ""
        with builder(target.tvm, cpu) as compiler:
            waking = wake_ns(boards, compiler) if unit == "seconds" else None
            search = Search(
                subjects,
                target,
                kept,
                boards,
                compiler,
                seed=seed,
                report=lambda progress: report(unit, progress),
            )
            search.run(trials)
            with phase("measuring the best against the defaults, in turns"):
                found = search.compare()
        path = _write(out, kept, _name(network, imported), target, unit, listed[0], waking)
        return Tuned(unit, search.done, search.measured, subjects, found, path)


def _say_too_few(trials: int, kernels: int) -> None:
    first = "the first trial" + (f" of each of the {kernels} kernels" if kernels > 1 else "")
    stderr.print(
        f"Note: --trials {trials} is too few to try anything: {first} is the default. {kernels + 1} are "
        f"enough for one candidate, {kernels + BATCH} for a batch of them.",
        style="yellow",
        soft_wrap=True,
    )


def lowered_to_tune(imported: Imported, target: CompileTarget, float_layers: str) -> Lowered:
    """The scales of bytes decide nothing about a kernel's speed, so that none are looked for."""
    int8, half = float_layers == "int8", float_layers == "fp16"
    if half and target.kernels.half_tile is None:
        raise UsageError(no_half(target))
    floats = lower(imported.module, imported.layer_names, target.kernels, observe=int8, half=half)
    if not int8:
        return floats
    ranges = dict.fromkeys(floats.observed, 1.0)
    return lower(imported.module, imported.layer_names, target.kernels, ranges=ranges)


def _unit(boards: Sequence[BoardInfo], target: CompileTarget, model_cycles: bool) -> str:
    """What the boards measure. Raises UsageError where they are not what the target is."""
    for board in boards:
        machine = target.machine
        if board.machine not in ("unknown", machine):
            raise UsageError(f"The board {board.key!r} is {board.machine}, and {target.name} is {machine}.")
        if board.features and (lacking := sorted(set(target.features) - set(board.features))):
            raise UsageError(
                f"The board {board.key!r} lacks {', '.join(lacking)}, which {target.name} "
                "takes. Give another --target."
            )
        if board.emulated and target.cpu != "generic" and board.cpu != target.emulated_cpu:
            raise UsageError(
                f"The emulated board {board.key!r} is a {board.cpu}, and {target.name} needs a "
                f"{target.emulated_cpu}."
            )
    kinds = {board.emulated for board in boards}
    if len(kinds) > 1:
        raise UsageError("Boards of one key are either real or emulated; these are both.")
    if not kinds.pop():
        return "seconds"
    if not model_cycles or target.machine != "aarch64":  # of which alone inner loops are read
        return "instructions"
    if missing := inner_loop.missing():
        stderr.print(f"Instructions alone are counted, without a model of their cycles: {missing}")
        return "instructions"
    return "model cycles"


def _name(network: Network, imported: Imported) -> str:
    return " ".join(filter(None, [network.title(imported), network.algorithm]))


_HOW = {
    "seconds": "Measured on {board} with {threads}; each record was measured against the default in turns.",
    "instructions": "Instructions that one call executes on {board}, counted under QEMU: not a time.",
    "model cycles": (
        "Instructions that one call executes on {board}, counted under QEMU, times the cycles an instruction "
        "of the inner loop in llvm-mca's model of {cpu}: a model, not a time. No record executes more "
        "instructions than the default."
    ),
}


def _write(
    out: Path,
    kept: Trials,
    name: str,
    target: CompileTarget,
    unit: str,
    board: BoardInfo,
    waking: float | None,
) -> Path:
    """The records of every network that was tuned in this folder, whole or not at all."""
    threads = kept.threads()
    how = _HOW[unit].format(
        board=f"an emulated {board.cpu}" if board.emulated else f"{board.cpu} ({target.cpu})",
        threads=f"{' or '.join(map(str, threads))} thread{'s' * (threads != [1])}"
        if threads
        else "the board's threads",
        cpu=inner_loop.modelled_cpu(target.scheduled_for),
    )
    networks = kept.add_network(name)
    counted = kept.count()
    obtained = (
        f"{how} {counted} trials over {', '.join(networks)}, chosen by MetaSchedule's XGBoost cost model, "
        f"seed {', '.join(map(str, kept.seeds()))}."
    )
    content = Records(target.processor, unit, obtained, kept.best(), waking)
    path = out / records.FILE
    with whole_file(path) as file:
        file.write(content.to_json().encode())
    return path
