"""Results that cannot be right, each made from one that can."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bibench_tvm.tracks.__main__ import app
from bibench_tvm.tracks.check import check, faults
from bibench_tvm.tracks.overall import overall
from bibench_tvm.tracks.results import Figure, Key, Layer, Result, read_all, write


def result(track: Any = "learning_task", algorithm: str = "bnn", **fields: Any) -> Result:
    figures = {
        "learning_task": [Figure(name="accuracy", value=0.5, unit="1", kind="measured")],
        "inference": [
            Figure(name="latency", value=0.5, unit="s", kind="measured"),
            Figure(name="size", value=5.0, unit="B", kind="measured"),
        ],
        "complexity": [Figure(name="compression", value=13.0, unit="1", kind="model")],
        "corruption": [
            Figure(name="accuracy", value=0.4, unit="1", kind="stand-in"),
            Figure(name="fog/1: accuracy", value=0.3, unit="1", kind="stand-in"),
            Figure(name="fog/2: accuracy", value=0.5, unit="1", kind="stand-in"),
        ],
    }[track]
    key = Key(
        track=track,
        task="fashion_mnist",
        arch="resnet20",
        algorithm=algorithm,
        profile="p",
        corruption="standin_corruptions" if track == "corruption" else None,
        device="host" if track == "inference" else None,
        threads=1 if track == "inference" else None,
    )
    return Result(
        **{
            "key": key,
            "figures": figures,
            "command": ["bibench_tvm.train"],
            "versions": {"torch": "2.13"},
            "commit": "",
            "machine": {"processor": "x"},
            "conditions": {},
            "hashes": {"checkpoint": "abc"},
            "ended": "2026-11-28T12:00:00+00:00",
            "seconds": 3.0,
            **fields,
        }
    )


def changed(track: str, index: int = 0, **fields: Any) -> Result:
    whole = result(track)
    figures = list(whole.figures)
    figures[index] = msgspec.structs.replace(figures[index], **fields)
    return msgspec.structs.replace(whole, figures=figures)


@pytest.mark.parametrize("track", ["learning_task", "inference", "complexity", "corruption"])
def test_what_is_right_is_left_alone(track: str) -> None:
    assert list(faults(result(track))) == []


def test_a_correlation_may_be_negative() -> None:
    assert not list(faults(changed("learning_task", name="matthews", value=-0.3)))


LAYER = Layer(name="c", op="conv2d", binarized=True, macs=1, cost=0.8)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (changed("learning_task", value=1.2), "accuracy is 1.2, and has to be from 0 to 1"),
        (changed("learning_task", value=-0.1), "accuracy is -0.1, and has to be from 0 to 1"),
        (changed("learning_task", value=float("nan")), "accuracy is nan, which is no number"),
        (changed("learning_task", kind="stand-in"), "accuracy is called stand-in, and is not of a stand-in"),
        (changed("corruption", kind="measured"), "accuracy is called measured, and is of a stand-in"),
        (changed("corruption", value=0.45), "accuracy is 0.45, and the mean of its 2 parts is not"),
        (changed("complexity", value=33.0), "compression is 33, and has to be from 0 to 32"),
        (changed("inference", value=0.0), "latency is 0, and has to be more than 0"),
        (changed("inference", 1, value=-5.0), "size is -5, and has to be more than 0"),
        (changed("inference", kind="emulated"), "latency is called emulated, and is in s"),
        (changed("inference", unit="instructions"), "latency is called measured, and is in instructions"),
        (result("inference", layers=[LAYER, LAYER]), "its layers take 1.6 together, and the whole 0.5"),
        (result(figures=[]), "it has no figures"),
        (result(figures=2 * result().figures), "it has two figures of one name"),
        (result(command=[], versions={}), "it does not say its command, versions"),
        (result(hashes={}), "it does not say its hash of the checkpoint"),
        (result(ended="yesterday"), "it ended at 'yesterday', which is no time"),
        (result(seconds=-1.0), "it took -1 seconds"),
    ],
)
def test_what_cannot_be_is_named(wrong: Result, sentence: str) -> None:
    assert sentence in list(faults(wrong))


def test_what_a_profile_has_none_of_is_not_missing(tmp_path: Path) -> None:
    for algorithm in ("fp32", "bnn"):
        one = result(algorithm=algorithm)
        key = msgspec.structs.replace(one.key, track="architecture")
        write(tmp_path, msgspec.structs.replace(one, key=key))
    [row] = overall(read_all(tmp_path)[0])
    assert (row.empty, row.missing) == (["Transformers", "MLPs"], [])
    assert check(tmp_path).missing == []
    next((tmp_path / "results").rglob("fp32*.json")).unlink()
    assert check(tmp_path).missing


def test_a_folder(tmp_path: Path) -> None:
    write(tmp_path, result())
    path = write(tmp_path, result(algorithm="fp32", versions={"torch": "2.14"}))
    found = check(tmp_path)
    assert len(found.results) == 2
    assert found.at_fault == found.missing == []
    assert found.mixed == ["The profile p has results with torch 2.13 and 2.14."]
    path.unlink()
    found = check(tmp_path)
    assert found.missing == ["p, learning_task, bnn: fashion_mnist"]
    path = write(tmp_path, changed("learning_task", value=2.0))
    assert check(tmp_path).at_fault == [f"{path}: accuracy is 2, and has to be from 0 to 1."]


def test_a_board_that_scores_otherwise(tmp_path: Path) -> None:
    write(tmp_path, result("learning_task"))
    timed = result("inference")
    key = msgspec.structs.replace(timed.key, device="pi", library="bibench_tvm")
    for value, sentences in [
        (0.502, []),
        (0.4, ["p, fashion_mnist, resnet20, bnn: accuracy is 0.4 on pi, and 0.5 where it was trained."]),
    ]:
        score = Figure(name="accuracy", value=value, unit="1", kind="measured")
        write(tmp_path, msgspec.structs.replace(timed, key=key, figures=[*timed.figures, score]))
        assert check(tmp_path).at_fault == sentences


def test_an_edited_number_is_found(tmp_path: Path) -> None:
    write(tmp_path, result(algorithm="fp32"))
    path = write(tmp_path, result())
    path.write_text(path.read_text().replace("0.5", "0.6"))
    assert check(tmp_path).at_fault == [f"{path}: it was changed after it was written."]
    content = json.loads(path.read_text())
    del content["hashes"]["content"]
    path.write_text(json.dumps(content))
    found = check(tmp_path)
    assert found.at_fault == []
    assert len(found.mixed) == 1
    assert "1 results without a hash of what they say" in found.mixed[0]


def test_a_task_that_is_not_known_here(tmp_path: Path) -> None:
    """As in results of somebody with a task of their own."""
    for algorithm in ("fp32", "bnn"):
        one = result(algorithm=algorithm)
        write(tmp_path, one)
        for track in ("learning_task", "architecture"):
            key = msgspec.structs.replace(one.key, task="theirs", track=track)
            write(tmp_path, msgspec.structs.replace(one, key=key))
    found = check(tmp_path)
    assert found.at_fault == []
    assert found.missing == [
        f"p, {track}: the task theirs, which is not known here" for track in ("architecture", "learning_task")
    ]
    [row] = overall(found.results)
    assert (row.track, row.overall.value) == ("learning_task", 100)
    shown = CliRunner().invoke(app, ["table", str(tmp_path)])
    assert shown.exit_code == 0
    assert "The task theirs is not known here" in shown.output
