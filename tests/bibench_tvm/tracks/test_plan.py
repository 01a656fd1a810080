"""Profiles as jobs, and what jobs print as figures."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.importer.own_algorithm import Own
from bibench_tvm.jobs.engine import _identities, _order
from bibench_tvm.jobs.job import Outcome
from bibench_tvm.tracks.deployment import IN_PAPER
from bibench_tvm.tracks.figures import figures_of, layers_of
from bibench_tvm.tracks.plan import Filter, Item, Place, Plan, places_of
from bibench_tvm.tracks.profiles import PROFILES
from bibench_tvm.tracks.results import TRACKS, Key, Layer
from bibench_tvm.tracks.structure import TASK
from tests.rpc.devices.stand_in import SERIAL
from trainers import list_algorithms
from trainers.models import default_sizes
from trainers.tasks import tasks

HOST = Place(device="host", target="host", cores=2)
EVERYTHING = Filter()


def items_of(name: str, folder: Path, wanted: Filter = EVERYTHING, **fields: Any) -> list[Item]:
    places = fields.pop("places", (HOST,))
    plan = Plan(name=name, profile=PROFILES[name], folder=folder, places=places, wanted=wanted, **fields)
    return plan.items()


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_a_graph_of_what_there_is(name: str, tmp_path: Path) -> None:
    profile = PROFILES[name]
    items = items_of(name, tmp_path)
    _order([item.job for item in items])
    keys = [key for item in items for key in item.keys]
    assert len({str(key) for key in keys}) == len(keys)
    assert {key.algorithm for key in keys} == {"fp32", *IN_PAPER} < set(list_algorithms())
    for key in keys:
        if key.task != TASK:
            default_sizes(key.arch)
            assert not key.task or tasks[key.task].metric
    expected = set(TRACKS) - ({"corruption", "training"} if name == "quick" else set())
    assert {key.track for key in keys} == expected
    if name == "standin":
        (block,) = [b for b in profile.trainings if b.task == "standin_speech"]
        seeds = {key.seed for key in keys if key.task == block.task and key.track == "learning_task"}
        assert seeds == {0, 1, 2}
        training = [key for key in keys if key.track == "training"]
        assert len(training) == (2 * 2 * 2 * 2 + 1) * 9
        assert {key.division for key in training} == {"open"}


def test_a_part_of_a_profile(tmp_path: Path) -> None:
    wanted = Filter(tracks=("learning_task",), tasks=("standin_points",), algorithms=("bnn",))
    items = items_of("quick", tmp_path, wanted)
    first, second = items
    assert [key.algorithm for item in items for key in item.keys] == ["fp32", "bnn"]
    assert second.job.needs == [first.job.name]
    assert str(tmp_path / "jobs" / first.job.name / "checkpoint.pt") in second.job.command
    named = items_of("quick", tmp_path, msgspec.structs.replace(wanted, algorithms=("adabin",)))
    assert [key.algorithm for item in named for key in item.keys] == ["fp32", "adabin"]
    inference = items_of("quick", tmp_path, Filter(tracks=("inference",), algorithms=("bnn",)))
    timed = [item for item in inference if item.keys]
    assert {key.track for item in timed for key in item.keys} == {"inference"}
    assert all(item.job.alone for item in timed)
    assert not any(item.job.alone for item in inference if not item.keys)
    for nothing in (
        Filter(tracks=("corruption",)),
        Filter(tasks=("standin_points",), archs=("resnet20@small",)),
    ):
        with pytest.raises(ValueError, match="The profile quick has no job for what was asked for"):
            items_of("quick", tmp_path, nothing)
    for strange, sentence in (
        (
            Filter(tasks=("standin_points", "glue/cola")),
            "no task 'glue/cola'; it has fashion_mnist, standin_",
        ),
        (Filter(archs=("resnet18", "vgg_small")), r"no network 'vgg_small'; it has .*, resnet18, cnn,"),
    ):
        with pytest.raises(ValueError, match=f"The profile quick has {sentence}"):
            items_of("quick", tmp_path, strange)
    with pytest.raises(ValueError, match="There is no algorithm 'bn'"):
        items_of("quick", tmp_path, Filter(algorithms=("bn",)))


def test_boards_and_threads(tmp_path: Path) -> None:
    """An emulated board has one thread and need not be alone; what two places share is compiled once."""
    wanted = Filter(tracks=("inference",), tasks=("standin_points",), algorithms=("bnn",))
    board = Place(device="pi", target="rpi4b", cores=4, options=("--board", "pi"))
    places = (HOST, board, Place(device="emulated", target="rpi4b", cores=4, emulated=True))
    items = items_of("standin", tmp_path, wanted, places=places)
    _order([item.job for item in items])
    found = [(key.algorithm, key.device, key.threads) for item in items for key in item.keys]
    assert found == [
        (algorithm, device, threads)
        for algorithm in ("fp32", "bnn")
        for device, threads in (
            *(("host", 1), ("host", 2)),
            *(("pi", 1), ("pi", 2), ("pi", 4)),
            *(("emulated", 1),),
        )
    ]
    assert sum("bibench_tvm.compile" in item.job.command for item in items) == 2 * 2
    for item in items:
        for key in item.keys:
            assert item.job.alone == (key.device != "emulated")
            assert ("--board" in item.job.command) == (key.device == "pi")
            beside = (key.algorithm, key.device, key.threads) == ("bnn", "host", 1)
            assert ("--against" in item.job.command) == beside
            assert ("--task" in item.job.command) == (key.device == "pi" and key.threads == 1)


def test_jobs_are_the_same_wherever_things_lie(tmp_path: Path) -> None:
    """The folder, the user's file and the tracker of a board."""
    wanted = Filter(algorithms=("bnn",))
    found = []
    for name in ("here", "there"):
        board = Place(device="pi", target="rpi4b", cores=4, options=("--board", "pi"), tracker=f"{name}:9190")
        own = Own("mine", tmp_path / name / "own.py", "abc")
        folder = tmp_path / name / "tracks"
        items = items_of("quick", folder, wanted, places=(HOST, board), own=own)
        assert any(f"{name}:9190" in item.job.command for item in items)
        found.append(_identities({item.job.name: item.job for item in items}, folder / "jobs"))
    assert found[0] == found[1]
    changed = msgspec.structs.replace(own, digest="abd")
    items = items_of("quick", folder, wanted, places=(HOST,), own=changed)
    other = _identities({item.job.name: item.job for item in items}, folder / "jobs")
    name = next(name for name in other if name.startswith("complexity/") and name.endswith("/mine"))
    assert other[name] != found[0][name]


def test_a_device_without_tvm(tmp_path: Path, phone: Path) -> None:
    """Its networks are compiled as libraries for C too, for what it says that it is."""
    (here, place) = places_of([SERIAL, SERIAL], "", 2)
    assert here == HOST and place == Place(
        device=SERIAL, target="rpi5", cores=place.cores, takes_c=True, options=("--board", SERIAL)
    )
    wanted = Filter(tracks=("inference",), tasks=("standin_points",), algorithms=("bnn",))
    for item in items_of("standin", tmp_path, wanted, places=(HOST, place)):
        command = item.job.command
        if "bibench_tvm.compile" in command:
            assert ("--standalone" in command) == ("rpi5" in command)
        assert ("--board" in command) == any(key.device == SERIAL for key in item.keys)


def test_an_algorithm_of_the_users_own(tmp_path: Path) -> None:
    """It is beside those asked for, every command of it is given its file, and no other is."""
    wanted = Filter(tasks=("fashion_mnist",), algorithms=("bnn",))
    own = Own("mine", Path("mine.py"), "abc")
    items = items_of("quick", tmp_path, wanted, own=own, limit=7)
    assert {key.algorithm for item in items for key in item.keys} == {"fp32", "bnn", "mine"}
    for item in items:
        assert item.job.limit == 7
        timed = "bibench_tvm.bench" in item.job.command
        assert ("--mine" in item.job.command) == ("mine" in item.job.name and not timed)


PRINTED: dict[str, dict[str, Any]] = {
    "learning_task": {"test_accuracy": 0.5, "train_seconds": 3.0, "checkpoint": "x"},
    "training": {"test_accuracy": 0.5, "train_seconds": 3.0, "cpu_seconds": 4.0, "peak_memory_bytes": 5},
    "corruption": {"metrics": {"accuracy": 0.4, "fog/1: accuracy": 0.3}},
    "complexity": {"parameters": 9, "bits": 8, "operations": 1.5, "compression": 7.0, "speedup": None},
    "inference": {"results": [{"emulated": False, "latency_ms": {"median": 2.0}, "size_bytes": 10}]},
}


@pytest.mark.parametrize("track", PRINTED)
def test_figures(track: Any) -> None:
    corrupted = "standin_corruptions" if track == "corruption" else None
    device = "host" if track == "training" else None
    key = Key(
        track=track,
        task="fashion_mnist",
        arch="a",
        algorithm="bnn",
        profile="p",
        corruption=corrupted,
        device=device,
    )
    outcome = Outcome(name="j", state="done", command=[], result=PRINTED[track])
    found = {figure.name: (figure.value, figure.unit, figure.kind) for figure in figures_of(key, outcome)}
    assert (
        found
        == {
            "learning_task": {"accuracy": (0.5, "1", "measured")},
            "training": {
                "train_seconds": (3.0, "s", "measured"),
                "cpu_seconds": (4.0, "s", "measured"),
                "peak_memory_bytes": (5.0, "B", "measured"),
            },
            "corruption": {
                "accuracy": (0.4, "1", "stand-in"),
                "fog/1: accuracy": (0.3, "1", "stand-in"),
            },
            "complexity": {
                "parameters": (9.0, "1", "model"),
                "bits": (8.0, "bit", "model"),
                "operations": (1.5, "1", "model"),
                "compression": (7.0, "1", "model"),
            },
            "inference": {"latency": (0.002, "s", "measured"), "size": (10.0, "B", "measured")},
        }[track]
    )


@pytest.mark.parametrize("track", ["inference", "complexity"])
def test_what_has_no_figures(track: Any) -> None:
    key = Key(track=track, task="fashion_mnist", arch="a", algorithm="bnn", profile="p")
    with pytest.raises(BibenchError, match="the job j printed has not the numbers"):
        figures_of(key, Outcome(name="j", state="done", command=[], result={"results": [{}]}))


def test_layers() -> None:
    key = Key(track="inference", task="t", arch="a", algorithm="bnn", profile="p")
    first = {"name": "c1", "op": "conv2d", "binarized": False, "reason": "first", "macs": 7, "bytes": None}
    layers = [
        {**first, "kernel": "k", "cost": 2.0},
        {**first, "name": "c2", "binarized": True, "reason": "", "bytes": 9, "kernel": "k", "cost": 1.0},
    ]
    times = {"ours": {"cost": 3.0, "ratio": 1.0}, "elsewhere": {"cost": 1.0, "ratio": None}}
    against = {"layers": [{"name": "c2", "like": [], "times": times}]}
    for unit, scale in (("ms", 1e-3), ("instructions", 1.0)):
        result = {"results": [{"unit": unit, "layers": layers, "against": against}]}
        found = layers_of(key, Outcome(name="j", state="done", command=[], result=result))
        assert found == [
            Layer(**first, cost=2.0 * scale),  # type: ignore[arg-type]
            Layer(
                name="c2",
                op="conv2d",
                binarized=True,
                macs=7,
                bytes=9,
                cost=scale,
                alone={"ours": 3.0 * scale},
            ),
        ]
    with pytest.raises(BibenchError, match="the job j printed has not the layers"):
        layers_of(key, Outcome(name="j", state="done", command=[], result={"results": [{"unit": "ms"}]}))
