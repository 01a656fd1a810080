"""`python -m bibench_tvm.bench ARTIFACT --board KEY`: what a network costs on a board, and its accuracy.

Without --against and --task it needs neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_tvm.artifact.manifest import Manifest
from bibench_tvm.cli.console import (
    MOST_THREADS,
    AsJson,
    Debug,
    Tracker,
    Wait,
    phase,
    print_json,
    refuse_tracker_alone,
    reporting,
    results,
    run_command,
    stderr,
)
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.overwriting import refuse_overwriting
from bibench_tvm.cli.whole_file import whole_file

if TYPE_CHECKING:
    from bibench_tvm.artifact.artifact import Artifact
    from bibench_tvm.importer import Imported
    from bibench_tvm.measuring.against import Source
    from bibench_tvm.measuring.measure import Images
    from rpc.session import Address, Board
    from trainers.tasks import Task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

REPORT = "report.json"


@app.command()
def bench(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT...", help="Folders that compile wrote.")
    ],
    boards: Annotated[
        list[str] | None,
        typer.Option(
            "--board",
            help="The key of a board at the tracker, or adb:SERIAL or ssh:HOST; again for each further. Left "
            "out: this machine.",
        ),
    ] = None,
    tracker: Tracker = "",
    images: Annotated[
        Path | None,
        typer.Option(help="An .npz with images, labels, mean and std, for the accuracy on the board."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="Judge the artifact on the board by this task, as train --evaluate does.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="With --task: its folder, if it is not at its usual place.")
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=2, max=100_000, help="So many timed runs; left out, those of 2 seconds, 10 to 200."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_THREADS, help="Left out: as many as TVM takes, most often one a core."),
    ] = None,
    against: Annotated[
        str, typer.Option(help="Compare with topi, onnxruntime, default, or several: topi,default.")
    ] = "",
    model: Annotated[
        Path | None, typer.Option(help="With --against: the file that was compiled, .pt2, .onnx, checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for report.json and pictures.")] = None,
    wait: Wait = 60,
    limit: Annotated[
        float, typer.Option(min=1, max=604800, help="Seconds that one board may be held.")
    ] = 3600,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time artifacts on boards, layer by layer, side by side, with memory, size and accuracy."""
    with reporting(as_json=as_json, debug=debug):
        from rpc import lean

        names, judged = _contestants(against, model, out), _task(task, data)
        if names:
            _refuse_devices(boards)
        if not names and judged is None:
            lean.import_tvm()  # who compares, compiles
        from bibench_tvm.artifact.artifact import load
        from bibench_tvm.measuring.tables import show
        from rpc.session import RemoteError

        loaded = [load(folder) for folder in artifacts]
        pictures = [_images(artifact, images) for artifact in loaded]
        sources = [_source(artifact, model) if names else None for artifact in loaded]
        report: dict[str, Any] = {"complete": False, "results": [], "left_out": [], "failed": []}
        if out:
            read = [file for artifact in loaded for file in artifact.files()]
            refuse_overwriting([out / REPORT], [*read, *filter(None, (images, model))])
            _make_folder(out)
        with _tracker(boards, tracker) as (address, keys):
            for index, key in _pairs(loaded, keys, address, report["left_out"]):
                job = _Job(loaded[index], pictures[index], judged, sources[index], names, runs, threads, out)
                try:
                    _measure(job, address, key, wait, limit, report)
                except (BibenchError, RemoteError) as error:
                    report["failed"].append(str(error))
        if not report["results"]:
            raise BibenchError(" ".join(report["failed"]))
        for sentence in report["failed"]:
            stderr.print(f"Error: {sentence}", style="red", soft_wrap=True)
        report["complete"] = not report["failed"]
        _save(out, report)
        show(report, results(as_json))
        if out:
            stderr.print(f"Written to {out}", soft_wrap=True)
        if as_json:
            print_json(report)
        if report["failed"]:
            raise typer.Exit(1)


@dataclass(frozen=True)
class _Job:
    """One artifact and what is to be found out about it, on each board."""

    artifact: Artifact
    images: Images | str
    task: Task | None
    source: Source | None
    against: Sequence[str]
    runs: int | None
    threads: int | None
    out: Path | None


def _measure(
    job: _Job, address: Address, key: str, wait_s: float, limit_s: float, report: dict[str, Any]
) -> None:
    """Add the job's result on one board to the report, and keep what there is after each step."""
    from bibench_tvm.measuring.measure import measure

    with _reached(address, key, wait_s, limit_s) as board:
        job.artifact.check_processor(board.info.machine, board.info.features, str(board))
        if job.threads:
            board.use_threads(job.threads)
        result = measure(job.artifact, board, images=job.images, runs=job.runs, progress=phase)
        if job.task is not None:
            result["metrics"] = _judge(job.artifact, job.task, board)
        report["results"].append(result)
        _save(job.out, report)
        if not job.against:
            return
        from bibench_tvm.measuring.against import compare

        in_place = {layer["name"]: layer["cost"] for layer in result["layers"]}
        result["against"] = compare(
            job.artifact,
            board,
            job.against,
            source=job.source,
            threads=result["threads"],
            in_place=in_place,
            progress=phase,
        )
    _save(job.out, report)
    if job.out:
        from bibench_tvm.measuring.picture import draw

        draw(result, job.out / f"against-{len(report['results'])}")


def _task(name: str, data: Path | None) -> Task | None:
    if not name:
        if data:
            raise UsageError("--data is for --task: it has the data of one.")
        return None
    from bibench_tvm.measuring.accuracy import open_task

    return open_task(name, data)


def _judge(artifact: Artifact, task: Task, board: Board) -> dict[str, float]:
    from bibench_tvm.measuring.accuracy import batches_of, forward_of_artifact, judge

    with phase(f"{board.info.key}: judging", batches_of(task)) as advance:
        about = f"What {artifact.folder} computes is not what the task asks for"
        return judge(forward_of_artifact(artifact, board), task, about, advance)


@contextlib.contextmanager
def _reached(address: Address, key: str, wait_s: float, limit_s: float) -> Iterator[Any]:
    from rpc.any_board import any_board

    with contextlib.ExitStack() as reached:
        with phase(f"{key}: connecting"):
            board = reached.enter_context(any_board(address, key, wait_s=wait_s, limit_s=limit_s))
        yield board


def _contestants(against: str, model: Path | None, out: Path | None) -> list[str]:
    if not against:
        if model:
            raise UsageError("--model is for --against: an artifact alone needs no other file.")
        return []
    from bibench_tvm.measuring.against import parse_names

    names = parse_names(against)
    if out:
        import matplotlib  # noqa: F401  to say at once that it is missing
    return names


def _refuse_devices(boards: Sequence[str] | None) -> None:
    """Raise UsageError for --against where a board has no runtime of TVM."""
    from rpc.listing import is_device

    if found := next(filter(is_device, boards or []), None):
        raise UsageError(f"--against needs TVM on the board, which {found} has not: leave it out.")


def _images(artifact: Artifact, path: Path | None) -> Images | str:
    """The images that this artifact is to classify, or why there are none."""
    from bibench_tvm.cli.images import load_images
    from bibench_tvm.importer.bundled import IMAGES
    from bibench_tvm.measuring.measure import check_images

    if path is None and not _is_bundled(artifact):
        return "There are no images to classify: --images F.npz."
    images, labels = load_images(path or IMAGES)
    check_images(artifact.record, images, path or IMAGES)
    return images, labels


def _is_bundled(artifact: Artifact) -> bool:
    from bibench_tvm.artifact.artifact import digest
    from bibench_tvm.importer.bundled import NETWORK

    source = artifact.record.source
    return source is not None and NETWORK.is_file() and source.sha256 == digest(NETWORK)


def _source(artifact: Artifact, model: Path | None) -> Source | None:
    """What the artifact was compiled from, for --against; None where nobody says."""
    from bibench_tvm.artifact.artifact import digest
    from bibench_tvm.importer import import_model
    from bibench_tvm.importer.bundled import NETWORK
    from bibench_tvm.measuring.against import Source

    manifest = artifact.record
    recorded = manifest.source
    file = model or (NETWORK if _is_bundled(artifact) else None)
    if file is None:
        imported = None if recorded else _of_architecture(manifest)
    else:
        with phase(f"importing {file.name}"):
            imported = import_model(file)
        if recorded and recorded.sha256 != digest(file):
            raise UsageError(f"{artifact.folder} was compiled from another file than {file}.")
        shapes = [tensor.shape for tensor in manifest.inputs]
        if shapes != [spec.shape for spec in imported.inputs]:
            raise UsageError(f"{artifact.folder} takes inputs of shapes {shapes}, and {file} does not.")
    return Source(imported, file) if imported else None


def _of_architecture(manifest: Manifest) -> Imported | None:
    """A network with fresh weights of an architecture that `trainers` knows; the work in it is the same."""
    from bibench_tvm.importer.source import fresh, sizes_of

    try:
        import trainers
    except ModuleNotFoundError:
        return None
    model, algorithm = manifest.model, manifest.algorithm
    if model not in trainers.list_models():
        return None
    if algorithm is None or algorithm not in trainers.list_algorithms():
        return None
    with phase(f"importing {model}"):
        only = len(manifest.inputs) == 1  # then it is meant, whatever an exporter called it
        shapes = {None if only else tensor.name: tensor.shape for tensor in manifest.inputs}
        made = fresh(model, algorithm, "paper", shapes, sizes_of(manifest))
        return made.load()


@contextlib.contextmanager
def _tracker(keys: list[str] | None, tracker: str) -> Iterator[tuple[Address, list[str]]]:
    """The tracker and the boards to measure; without keys, this machine as a board of its own."""
    from rpc.devices.transport import check_key
    from rpc.session import local_board, tracker_address

    refuse_tracker_alone(tracker, keys)
    if keys:
        for key in keys:
            check_key(key)
        yield tracker_address(tracker), list(dict.fromkeys(keys))
        return
    with local_board() as (address, key):
        yield address, [key]


def _pairs(
    loaded: Sequence[Artifact], keys: Sequence[str], address: Address, left_out: list[str]
) -> list[tuple[int, str]]:
    """(index of the artifact, key of the board) for all that fit; a sentence for each that does not."""
    from rpc.listing import is_device
    from rpc.session import RemoteError, list_boards

    infos = {}
    try:
        if not all(map(is_device, keys)):  # what a device is, it says when it is reached
            infos = {board.key: board for board in list_boards(address)}
    except RemoteError as error:
        raise BibenchError(str(error)) from error
    pairs = []
    for index, artifact in enumerate(loaded):
        for key in keys:
            try:
                if board := infos.get(key):  # `session` has the sentence for a board that is not there
                    artifact.check_processor(board.machine, board.features, f"the board {key!r}")
                pairs.append((index, key))
            except BibenchError as error:
                left_out.append(str(error))
    if not pairs:
        raise BibenchError(left_out[0])
    for sentence in left_out:
        stderr.print(sentence, style="yellow", soft_wrap=True)
    return pairs


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"The folder {out} cannot be written: {error.strerror or error}.") from error


def _save(out: Path | None, report: dict[str, Any]) -> None:
    """The whole report, or the one that was there before."""
    if not out:
        return
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    with whole_file(out / REPORT) as file:
        file.write(text.encode())


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.bench")
