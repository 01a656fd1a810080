"""Result files: typed, whole, each in the place of its key."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.tracks.results import (
    CONTENT,
    Figure,
    Key,
    Result,
    edited,
    path_of,
    read,
    read_all,
    rows,
    schema,
    write,
)


def result(**changes: Any) -> Result:
    key = Key(
        track="learning_task", task="glue/cola", arch="bert_tiny4@small", algorithm="bnn", profile="quick"
    )
    figures = changes.pop("figures", [Figure(name="accuracy", value=0.5, unit="1", kind="stand-in")])
    return Result(
        key=msgspec.structs.replace(key, **changes),
        figures=figures,
        command=["bibench_tvm.train", "--json"],
        versions={"torch": "2"},
        commit="",
        machine={"cores": 2},
        conditions={"load_average": 1.0},
        ended="2026-01-01T00:00:00+00:00",
        seconds=1.5,
    )


def plain(result: Result) -> Result:
    """Without the hash that it is written with."""
    hashes = {name: value for name, value in result.hashes.items() if name != CONTENT}
    return msgspec.structs.replace(result, hashes=hashes)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    first = result(settings={"lr": "0.1", "epochs": "2"}, seed=1)
    path = write(tmp_path, first)
    assert path.parent == tmp_path / "results/learning_task/glue_cola/bert_tiny4@small"
    assert plain(read(path)) == first
    assert list(map(plain, read_all(tmp_path)[0])) == [first]
    again = msgspec.structs.replace(first, seconds=9.0)
    assert write(tmp_path, again) == path
    assert list(map(plain, read_all(tmp_path)[0])) == [again]
    assert first.figure("accuracy") == 0.5
    assert first.figure("loss") is None


def test_every_field_of_the_key_tells_results_apart(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        *({"seed": 1}, {"profile": "paper"}, {"settings": {"lr": "1"}}, {"settings": {"lr": "2"}}),
        *({"algorithm": "xnor"}, {"variant": "released"}, {"division": "open"}, {"recipe": "sgd"}),
        *({"corruption": "c"}, {"device": "host"}, {"threads": 2}, {"library": "x"}, {"track": "training"}),
    ]
    assert len({path_of(tmp_path, result(**change).key) for change in changes}) == len(changes)
    one = path_of(tmp_path, result(settings={"a": "1", "b": "2"}).key)
    assert one == path_of(tmp_path, result(settings={"b": "2", "a": "1"}).key)


@pytest.mark.parametrize(
    "change",
    [
        (b'"value": 0.5', b'"value": 0.51'),
        (b'"cores": 2', b'"cores": 3'),
        (b'"seconds": 1.5', b'"seconds": 2'),
    ],
)
def test_an_edited_number_shows(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    whole = msgspec.structs.replace(result(), conditions={"load_average": 1})  # which is read as 1.0
    path = write(tmp_path, whole)
    assert not edited(read(path))
    assert write(tmp_path, read(path)) == path
    assert not edited(read(path))
    path.write_bytes(path.read_bytes().replace(b" ", b""))
    assert not edited(read(path))
    write(tmp_path, whole)
    path.write_bytes(path.read_bytes().replace(*change))
    assert edited(read(path))


def test_a_copy_in_another_place_is_not_counted_twice(tmp_path: Path) -> None:
    path = write(tmp_path, result())
    copy = path.with_name("copy.json")
    copy.write_bytes(path.read_bytes())
    results, (sentence,) = read_all(tmp_path)
    assert len(results) == 1
    assert sentence == f"{copy} holds the result that belongs into {path}, and is left out."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content[:-9], "is no result"),
        (lambda content: b"\xff", "is no result"),
        (lambda content: b"[" * 100_000, "is no result"),
        (lambda content: content.replace(b'"seconds": 1.5', b'"seconds": "x"'), r"is no result.*\$.seconds"),
        (lambda content: content.replace(b'"stand-in"', b'"guessed"'), r"is no result.*guessed"),
        (lambda content: content.replace(b'"schema_version": 1', b'"schema_version": 7'), "of version 7"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, change: Any, sentence: str) -> None:
    path = write(tmp_path, result())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BibenchError, match=sentence) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_rows_are_flat() -> None:
    (row,) = rows([result(settings={"lr": "0.1"})])
    assert row["settings"] == "lr=0.1"
    assert (row["name"], row["value"], row["kind"], row["track"]) == (
        "accuracy",
        0.5,
        "stand-in",
        "learning_task",
    )


def test_the_schema_in_the_docs_is_that_of_the_program() -> None:
    path = Path(__file__).parents[3] / "docs/result.schema.json"
    assert json.loads(path.read_text()) == schema()
