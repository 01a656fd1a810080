"""`python -m benchmarks.zoo DIR`: train the networks of the zoo, and say what they are worth.

Jobs as those of the tracks train each, from its float network, compile it, judge the artifact by what judged
the checkpoint, and time it here and on boards. What is done stays done. With all of it done the checkpoints
are copied to trainers/zoo/, and the tables written to docs/zoo.md.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bibench_tvm.cli.console import Debug, Tracker, reporting, stderr, stdout
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.jobs.engine import run_jobs
from bibench_tvm.jobs.job import Job, Outcome, folder_of
from bibench_tvm.jobs.progress import shown
from bibench_tvm.tracks.plan import Filter, Plan, places_of
from bibench_tvm.tracks.profiles import Block, Profile
from trainers.checkpoint import CHECKPOINT
from trainers.pretrained import FOLDER
from trainers.tasks import tasks

KEPT = ("fp32", "reactnet")
MOST_BYTES = 8 << 20
SIZED_FOR = "arm_cpu"  # whose bytes are those of any machine that compiles for it
DOCS = Path(__file__).parents[1] / "docs" / "zoo.md"
HEAD = """# The zoo

Small networks that were trained here, on data that can be had offline; on stand-ins but for Fashion-MNIST,
so that no accuracy compares with the paper's.

    bibench compile --arch {example} --algorithm reactnet --pretrained --target host

compiles one; `trainers.pretrained.pretrained("{example}", "reactnet")` is its checkpoint. This page and the
checkpoints are written by

    python -m benchmarks.zoo DIR{options}

"""
TAIL = """
Metrics in percent, before and after compiling. Bytes of the artifact for `{sized_for}`, which are the same
wherever it is compiled; for your processor they are others. `host` is the machine that wrote this page, not
yours: its times, on one thread, compare with each other.

## Waypoints

The metric in validation after each epoch, in percent: a training with the same recipe and seed goes this way.

"""
BLOCKS = (
    Block(
        task="fashion_mnist",
        arch="resnet20@small",
        settings=("epochs=8", "lr=0.002", "batch_size=32", "holdout=0.1"),
        limit_train=10000,
    ),
    Block(task="standin_speech", arch="dfsmn@small", settings=("lr=0.002",)),
    Block(task="standin_points", arch="pointnet_vanilla@small", settings=("lr=0.002",)),
    Block(task="standin_text", arch="bert_tiny4@small", settings=("epochs=6",)),
    Block(task="standin_detection", arch="ssd300@small", settings=("lr=0.003",)),
)
PROFILE = Profile(
    trainings=BLOCKS,
    corrupted={},
    sensitivity=None,
    consumption=None,
    complexity=(),
    structure=False,
    threads=(1,),
    limit=3600,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A network of the zoo.

    Attributes:
        before, after: the task's metric of the checkpoint and of the artifact; size_bytes: for SIZED_FOR;
            waypoints: in validation, by epoch; costs: device -> its number and unit.
    """

    task: str
    arch: str
    algorithm: str
    metric: str
    before: float
    after: float
    size_bytes: int
    costs: dict[str, str]
    waypoints: list[tuple[int, float]]
    command: list[str]
    checkpoint: Path


@app.command()
def zoo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of the jobs, which are gone on with.")],
    algorithm: Annotated[list[str] | None, typer.Option(help="Beside fp32; may be repeated.")] = None,
    board: Annotated[list[str] | None, typer.Option(help="The key of a board; may be repeated.")] = None,
    tracker: Tracker = "",
    debug: Debug = False,
) -> None:
    """Train, compile, judge and time the zoo; exit 1 if something of it fails."""
    with reporting(as_json=False, debug=debug):
        cores = len(os.sched_getaffinity(0))
        plan = Plan(
            name="zoo",
            profile=PROFILE,
            folder=folder,
            places=places_of(board or (), tracker, cores),
            wanted=Filter(
                tracks=("learning_task", "inference"), algorithms=tuple(algorithm or ("reactnet",))
            ),
        )
        jobs = [item.job for item in plan.items()]
        compiled = [job for job in jobs if job.name.startswith("compile/host/")]
        jobs += [
            made for job in compiled for made in (_judging(job), _sizing(job, (folder / "jobs").absolute()))
        ]
        with shown(f"{len(jobs)} jobs", len(jobs)) as advance:
            outcomes = run_jobs(jobs, folder / "jobs", cores=cores, advance=advance)
        if failed := [f"{one.name}: {one.reason}" for one in outcomes if one.state != "done"]:
            raise BibenchError(" ".join(failed))
        entries = _entries({one.name: one for one in outcomes}, folder / "jobs")
        _keep([entry for entry in entries if entry.algorithm in KEPT])
        options = "".join(f" --algorithm {name}" for name in algorithm or ())
        options += "".join(f" --board {key}" for key in board or ())
        DOCS.write_text(page(entries, options))
        stdout.print(f"{len(entries)} networks: {DOCS}")


def _judging(compiled: Job) -> Job:
    """The artifact, by the task that its network was trained on."""
    name = compiled.name.removeprefix("compile/host/")
    artifact = compiled.command[compiled.command.index("--out") + 1]
    task = next(block.task for block in BLOCKS if name.startswith(f"{block.task}/"))
    command = ["bibench_tvm.train", "--json", "--threads", "1", "--evaluate", artifact, "--task", task]
    return Job(name=f"judge/{name}", command=command, needs=[compiled.name])


def _sizing(compiled: Job, jobs: Path) -> Job:
    """The same network for SIZED_FOR."""
    name = compiled.name.replace("compile/host/", "size/", 1)
    changed = {"--target": SIZED_FOR, "--verify": "0", "--out": str(folder_of(jobs, name) / "artifact")}
    words = zip(["", *compiled.command], compiled.command, strict=False)
    return Job(name=name, command=[changed.get(before, word) for before, word in words], needs=compiled.needs)


def _entries(outcomes: dict[str, Outcome], jobs: Path) -> list[Entry]:
    found = []
    for name, judged in outcomes.items():
        if not name.startswith("judge/"):
            continue
        trained = outcomes[name.removeprefix("judge/")]
        printed = trained.result
        metric = tasks[printed["task"]].metric
        place = folder_of(jobs, trained.name)
        costs = {}
        size = outcomes[f"size/{trained.name}"].result["size_bytes"]["deployed"]
        for timed in (one for one in outcomes.values() if one.name.startswith("bench/")):
            if timed.name.endswith(f"/{trained.name}"):
                (measured,) = timed.result["results"]
                costs[timed.name.split("/")[1]] = _cost(measured)
        found.append(
            Entry(
                task=printed["task"],
                arch=printed["arch"],
                algorithm=printed["algorithm"],
                metric=metric,
                before=printed[f"test_{metric}"],
                after=judged.result["metrics"][metric],
                size_bytes=size,
                costs=costs,
                waypoints=waypoints(place / "log.jsonl", metric),
                command=trained.command,
                checkpoint=place / CHECKPOINT,
            )
        )
    return found


def _cost(measured: dict[str, Any]) -> str:
    if measured["emulated"]:
        return f"{measured['instructions']['median'] / 1e6:.2f} M instructions"
    return f"{measured['latency_ms']['median']:.3f} ms"


def waypoints(log: Path, metric: str) -> list[tuple[int, float]]:
    """(epoch, metric in validation), from a training's log."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["epoch"], line["validation"][metric]) for line in lines if "validation" in line]


def _keep(entries: list[Entry]) -> None:
    if (total := sum(entry.checkpoint.stat().st_size for entry in entries)) > MOST_BYTES:
        raise BibenchError(f"The zoo would have {total:,} bytes, and is to have {MOST_BYTES:,} at most.")
    for entry in entries:
        FOLDER.mkdir(exist_ok=True)
        shutil.copyfile(entry.checkpoint, FOLDER / f"{entry.arch}-{entry.algorithm}.pt")
    stderr.print(f"{len(entries)} checkpoints of {total:,} bytes in {FOLDER}", soft_wrap=True)


def page(entries: list[Entry], options: str) -> str:
    """docs/zoo.md."""
    devices = list(dict.fromkeys(device for entry in entries for device in entry.costs))
    columns = ["network", "task", "algorithm", "metric", "before", "after", f"bytes, {SIZED_FOR}", *devices]
    rows = [columns, ["---"] * len(columns)]
    for e in entries:
        percent = [f"{100 * value:.2f}" for value in (e.before, e.after)]
        costs = [e.costs.get(device, "") for device in devices]
        rows.append([e.arch, e.task, e.algorithm, e.metric, *percent, f"{e.size_bytes:,}", *costs])
    text = HEAD.format(example=entries[0].arch, options=options)
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    text += TAIL.format(sized_for=SIZED_FOR)
    for e in entries:
        points = ", ".join(f"{100 * value:.1f}" for _, value in e.waypoints) or "no validation"
        text += f"- {e.arch}, {e.task}, {e.algorithm}: {points}\n"
    text += "\n## Commands\n\n"
    for e in entries:
        text += f"    python -m {' '.join(_portable(e.command))}\n"
    return text


def _portable(command: list[str]) -> list[str]:
    """Without the folders of the machine that it was run on."""
    found = []
    for i, word in enumerate(command):
        after = command[i - 1] if i else ""
        found.append({"--out": "OUT", "--init": "FLOAT/checkpoint.pt"}.get(after, word))
    return [word for word in found if word != "--json"]


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.zoo")
