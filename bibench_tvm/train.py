"""`python -m bibench_tvm.train`: train a network, float or binarized, on a task.

The bundled network was written by the command in its checkpoint's extra["command"].
"""

import contextlib
import os
import resource
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bibench_tvm.cli.console import (
    MOST_THREADS,
    AsJson,
    Debug,
    Tracker,
    Wait,
    notes,
    phase,
    print_json,
    refuse_tracker_alone,
    reporting,
    results,
    run_command,
    stderr,
)
from bibench_tvm.cli.errors import BibenchError, UsageError, unknown
from bibench_tvm.cli.unused import note_unused
from bibench_tvm.importer.own_algorithm import Mine, Own, own_algorithm

if TYPE_CHECKING:
    from trainers.training.recipe import Recipe
    from trainers.training.run import Resources, Run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_JUDGING = ("judged", "task", "data", "board", "tracker", "wait", "threads", "mine")
_SWEEPING = ("sweep", "out", "cores", "mine")
_OWN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

Out = Annotated[
    Path | None,
    typer.Option(help="Folder of checkpoint.pt, the log and the state to go on from. Default: in runs/."),
]
TaskName = Annotated[str, typer.Option(help="What to train on.")]
Arch = Annotated[str, typer.Option(help="The network, such as resnet20 or resnet20@small.")]
Algorithm = Annotated[
    str | None,
    typer.Option(help="The binarization algorithm, or fp32 for none. Default: --mine's, or reactnet."),
]
Variant = Annotated[str, typer.Option(help="The formulas: paper or released.")]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="A module that stays float; may be repeated. Default: first conv., last linear."),
]
RecipeName = Annotated[
    str | None, typer.Option(help="How to train: a recipe's name. Default: short or paper, the task's.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="KEY=VALUE of the recipe, or ALGORITHM.KEY=VALUE of its numbers; may be repeated."
    ),
]
ShowRecipe = Annotated[bool, typer.Option("--show-recipe", help="Print the recipe as YAML, and do no more.")]
Init = Annotated[
    Path | None, typer.Option(help="A checkpoint to start from. Default: the float network, trained first.")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="As --set epochs=N. Default: the task's.")
]
BatchSize = Annotated[int | None, typer.Option(min=2, max=1_000_000, help="As --set batch_size=N.")]
LearningRate = Annotated[float | None, typer.Option(min=0.0, help="As --set lr=X.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1)]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_THREADS, help="CPU threads of each process. Default: all cores, shared out."
    ),
]
Workers = Annotated[int, typer.Option(min=0, max=MOST_THREADS, help="Processes that read the data.")]
Devices = Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="GPUs, or processes on a CPU.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
Precision = Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")]
SaveEvery = Annotated[
    float,
    typer.Option(min=0, max=604800, help="Seconds between two states to go on from; each epoch has one too."),
]
LimitTrain = Annotated[
    int | None,
    typer.Option(
        min=2, max=1_000_000_000, help="Use only so many samples, chosen at random once and for all."
    ),
]
Judged = Annotated[
    Path | None,
    typer.Option(
        "--evaluate", help="A checkpoint or an artifact's folder: judge it on the task, train nothing."
    ),
]
SweepFile = Annotated[
    Path | None,
    typer.Option(help="A YAML file of tasks, networks, algorithms, seeds and settings: train them all."),
]
Cores = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_THREADS, help="Of a sweep: trainings at a time. Default: all cores."),
]
Board = Annotated[str, typer.Option(help="With --evaluate: KEY at --tracker, adb:SERIAL or ssh:HOST.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the data set, if it is not at its usual place.")]


@app.command()
def train(
    context: typer.Context,
    out: Out = None,
    task: TaskName = "fashion_mnist",
    arch: Arch = "resnet20",
    algorithm: Algorithm = None,
    variant: Variant = "paper",
    mine: Mine = None,
    keep: Keep = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    show_recipe: ShowRecipe = False,
    init: Init = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    seed: Seed = 0,
    threads: Threads = None,
    workers: Workers = 0,
    devices: Devices = 1,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    save_every: SaveEvery = 60.0,
    limit_train: LimitTrain = None,
    judged: Judged = None,
    sweep: SweepFile = None,
    cores: Cores = None,
    board: Board = "",
    tracker: Tracker = "",
    wait: Wait = 60,
    data: Data = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a network and write a checkpoint; a stopped training goes on when the command is given again."""
    with reporting(as_json=as_json, debug=debug), notes(), own_algorithm(mine) as own:
        everywhere = len(os.sched_getaffinity(0))
        algorithm = algorithm or (own.name if own else "reactnet")
        if judged is not None:
            note_unused(context, "--evaluate", _JUDGING)
            refuse_tracker_alone(tracker, board)
            _judge(judged, task, data, board, tracker, wait, threads or everywhere, as_json=as_json)
            return
        if sweep is not None:
            note_unused(context, "--sweep: its file says what is trained", _SWEEPING)
            _sweep(sweep, out or Path("runs") / sweep.stem, cores or everywhere, own, as_json=as_json)
            return
        if board or tracker:
            raise UsageError("--board and --tracker go with --evaluate.")
        if cores:
            raise UsageError("--cores goes with --sweep; a training by itself has --threads.")
        from trainers.tasks import tasks
        from trainers.training.recipe import find_recipe, split_setting
        from trainers.training.run import Resources, Run

        shortcuts = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
        given, numbers = _settings_of(settings or [], shortcuts, algorithm)
        run = Run(
            task=task,
            arch=arch,
            algorithm=algorithm,
            variant=variant,
            hyperparameters=dict(map(split_setting, numbers)),
            keep=keep or None,
            recipe=find_recipe(recipe or tasks[task].recipe, given),
            seed=seed,
            init=str(init) if init else None,
            limit_train=limit_train,
            data=str(data) if data else None,
        )
        if show_recipe:
            _show(run.recipe, as_json=as_json)
            return
        for name, value, known in (
            ("precision", precision, ("32-true", "bf16-mixed", "16-mixed")),
            ("accelerator", accelerator, ("auto", "cpu", "gpu")),
        ):
            if value not in known:
                raise unknown(name, value, known)
        resources = Resources(
            threads=threads or max(1, everywhere // devices),
            workers=workers,
            devices=devices,
            accelerator=accelerator,
            precision=precision,
            save_every=save_every,
        )
        folder = out or Path("runs") / "-".join([task.replace("/", "_"), arch, algorithm, str(seed)])
        _train(run, folder, resources, as_json=as_json)


def _settings_of(
    settings: Sequence[str], shortcuts: Mapping[str, object], algorithm: str
) -> tuple[list[str], list[str]]:
    """(those of the recipe, the algorithm's own numbers), each as KEY=VALUE."""
    from trainers.convert import list_algorithms

    prefix = f"{algorithm}."
    numbers = [text.removeprefix(prefix) for text in settings if text.startswith(prefix)]
    given = [text for text in settings if not text.startswith(prefix)]
    for text in given:
        owner, dot, _ = text.partition("=")[0].partition(".")
        if dot and owner in list_algorithms():
            raise UsageError(f"--set {text} is for {owner}, but --algorithm is {algorithm}.")
    return given + [f"{key}={value}" for key, value in shortcuts.items() if value is not None], numbers


def _show(recipe: "Recipe", *, as_json: bool) -> None:
    import msgspec

    from trainers.training.recipe import as_yaml

    if as_json:
        print_json(msgspec.to_builtins(recipe))
    else:
        print(as_yaml(recipe), end="")


def _train(run: "Run", folder: Path, resources: "Resources", *, as_json: bool) -> None:
    from trainers.checkpoint import CHECKPOINT
    from trainers.tasks import DataError
    from trainers.training.run import perform

    try:
        metrics = perform(run, folder, resources, "python -m bibench_tvm.train " + shlex.join(sys.argv[1:]))
    except DataError as error:
        raise BibenchError(str(error)) from error
    except KeyboardInterrupt:
        stderr.print("The same command goes on where this one was stopped.")
        raise
    if metrics:  # none of several processes but the first, which reports
        _say(run, metrics, folder / CHECKPOINT, as_json=as_json)


def _say(run: "Run", metrics: Mapping[str, float], checkpoint: Path, *, as_json: bool) -> None:
    from trainers.tasks import tasks
    from trainers.torch_file import load_untrusted

    decisive = tasks[run.task].metric
    results(as_json).print(f"{checkpoint}: {decisive} {metrics[decisive]:.2%} on {run.task}")
    if as_json:
        names = {field: getattr(run, field) for field in ("arch", "algorithm", "variant", "task")}
        named = {f"test_{name}": value for name, value in metrics.items()}
        extra = load_untrusted(checkpoint)["extra"]
        about = {name: extra[name] for name in ("train_seconds", "data")}
        used = {"cpu_seconds": _cpu_seconds(), "peak_memory_bytes": _peak_memory_bytes()}
        print_json({**names, **named, **about, **used, "checkpoint": str(checkpoint)})


def _cpu_seconds() -> float:
    """Of this process and of those that read its data."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, _OWN))


def _peak_memory_bytes() -> int:
    """Of the largest process."""
    return max(used.ru_maxrss for used in map(resource.getrusage, _OWN)) * (
        1 if sys.platform == "darwin" else 1024
    )


def _judge(
    path: Path,
    task: str,
    data: Path | None,
    board: str,
    tracker: str,
    wait: float,
    threads: int,
    *,
    as_json: bool,
) -> None:
    import torch

    from bibench_tvm.artifact.artifact import load
    from bibench_tvm.detection.detector import is_detector, load_detector
    from bibench_tvm.measuring.accuracy import (
        batches_of,
        forward_of_artifact,
        forward_of_checkpoint,
        judge,
        open_task,
    )
    from rpc.any_board import any_board
    from rpc.wire import tracker_address
    from trainers.checkpoint import CHECKPOINT

    if path.is_dir() and not (path / "manifest.json").exists() and (path / CHECKPOINT).exists():
        path /= CHECKPOINT  # the folder of a training
    torch.set_num_threads(threads)
    if board and not path.is_dir():
        raise UsageError(f"{path} is no artifact's folder, and a board runs artifacts.")
    opened = open_task(task, data)
    compiled = load_detector if is_detector(path) else load
    where: dict[str, object] = {}
    with contextlib.ExitStack() as stack:
        if not path.is_dir():
            forward = forward_of_checkpoint(path, opened, task)
        elif board:
            reached = any_board(tracker_address(tracker), board, wait_s=wait, limit_s=3600)
            ours = stack.enter_context(reached)
            where = {"board": ours.info.key, "emulated": ours.info.emulated}
            forward = forward_of_artifact(compiled(path), ours)
        else:
            forward = forward_of_artifact(compiled(path))
        advance = stack.enter_context(phase(f"judging {path} on {task}", batches_of(opened)))
        about = f"What {path} computes is not what {task} asks for"
        metrics = judge(forward, opened, about, advance)
    table = Table("metric", task)
    for name, value in metrics.items():
        table.add_row(name, f"{100 * value:.2f}")
    results(as_json).print(table)
    if as_json:
        print_json({"evaluated": str(path), "task": task, **where, "metrics": metrics})


def _sweep(path: Path, out: Path, cores: int, own: Own | None, *, as_json: bool) -> None:
    from bibench_tvm.jobs.engine import run_jobs
    from bibench_tvm.jobs.progress import shown
    from bibench_tvm.jobs.sweep import jobs_of, read_sweep, rows_of, table_of

    points = read_sweep(path, own)
    jobs = jobs_of(points, out, own)
    with shown(f"{len(jobs)} trainings", len(jobs)) as advance:
        outcomes = run_jobs(jobs, out, cores=cores, advance=advance)
    rows = rows_of(points, outcomes)
    results(as_json).print(table_of(rows))
    for sentence in [sentence for row in rows for sentence in row["missing"]]:
        results(as_json).print(sentence, soft_wrap=True)
    if as_json:
        print_json({"sweep": str(path), "folder": str(out), "rows": rows})
    if any(outcome.state == "stopped" for outcome in outcomes):
        stderr.print("The same command goes on where this one was stopped.")
    if any(outcome.state != "done" for outcome in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.train")
