"""The stand-in for text on a few sentences in the format of the package that they are from."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import torch

import trainers
from trainers.inputs import call
from trainers.tasks import DataError, data_folder, standin_text, tasks
from trainers.tasks.standin_text import ARCHIVE, FILES, extract, split_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        lines = [
            f"{n}\t{n % 9 - 4}.5\tthe {name} of day {n}, “{'very ' * (n % 40)}fine”\r\n" for n in range(60)
        ]
        (tmp_path / f"{name}.txt").write_bytes("".join(lines).encode())
    return tmp_path


def test_batches_fit_the_network(folder: Path) -> None:
    task = tasks["standin_text"](folder)
    assert sum(task.splits.values()) == 240 and set(task.splits) == {"train", "validation", "test"}
    inputs, labels = task.batch("train", [3, 0, task.splits["train"] - 1])
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert {n: (v.dtype, v.shape) for n, v in inputs.items()} == dict.fromkeys(names, (torch.int64, (3, 32)))
    assert labels.tolist() == [0, 0, 3]
    assert all(torch.equal(values[1:2], task.batch("train", [0])[0][name]) for name, values in inputs.items())
    outputs = call(trainers.create_model("bert_tiny4@small", **task.sizes), inputs)
    assert outputs.shape == (3, 4) and task.loss(outputs, labels).requires_grad
    metrics = task.metrics()
    metrics.update(torch.eye(4)[[0, 0, 2]], labels)
    assert metrics.compute()[task.metric].item() == pytest.approx(2 / 3)


def test_a_sentence_that_is_there_twice_is_in_one_split() -> None:
    shares = [split_of(f"sentence {number}") for number in range(2000)]
    assert shares == [split_of(f"sentence {number}") for number in range(2000)]
    assert 150 < shares.count("test") < 250 and 150 < shares.count("validation") < 250


def test_the_identity_is_of_the_content(folder: Path) -> None:
    before = tasks["standin_text"](folder).identity
    path = folder / "tweets.txt"
    path.write_bytes(path.read_bytes().replace(b"day 7", b"day 8"))
    assert tasks["standin_text"](folder).identity != before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no .*tweets.txt. Type: ./install.sh data"),
        (b"", "tweets.txt is empty"),
        (b"1\t0.5\tfine\n2\t0.5\n", "Line 2 of .*tweets.txt should be a number, a score and a sentence"),
        (b"1\t0.5\tfine\n2\t0.5\tcaf\xe9\n", "should be UTF-8 text, but its line 2 is not"),
    ],
    ids=["missing", "empty", "columns", "encoding"],
)
def test_damaged_files(folder: Path, content: bytes | None, sentence: str) -> None:
    (folder / "tweets.txt").unlink()
    if content is not None:
        (folder / "tweets.txt").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        tasks["standin_text"](folder)


def test_too_few_sentences(folder: Path) -> None:
    for name in FILES:
        (folder / f"{name}.txt").write_text("1\t0.5\tthe same\n")
    with pytest.raises(DataError, match="too few sentences"):
        tasks["standin_text"](folder)


def pack(members: dict[str, bytes | str]) -> bytes:
    """A .tar.gz of files, and of symbolic links where a target is given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


WHOLE = {member: name.encode() for name, member in FILES.items()}


def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    sdist = tmp_path / "sdist.tar.gz"
    sdist.write_bytes(content)
    monkeypatch.setattr(standin_text, "SDIST", hashlib.sha256(content).hexdigest())
    extract(sdist, tmp_path / "in" / "standin_text")
    return tmp_path / "in" / "standin_text"


def test_only_what_is_asked_for_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = pack({"/etc/x": b"", "../../y": b"", "link": "/etc", **WHOLE})
    folder = take(tmp_path, monkeypatch, pack({"../z": b"", ARCHIVE: inner}))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        f"{name}.txt": name for name in FILES
    }
    assert {path.name for path in tmp_path.iterdir()} == {"in", "sdist.tar.gz"}
    assert [path.name for path in folder.parent.iterdir()] == ["standin_text"]
    before = (folder / "tweets.txt").stat()
    assert take(tmp_path, monkeypatch, b"other") == folder, "what is there stays"
    assert (folder / "tweets.txt").stat() == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pack({}), f"should hold {ARCHIVE}, and does not"),
        (pack({ARCHIVE: b"no archive"}), "is not an archive"),
        (pack({ARCHIVE: "/etc/passwd"}), "should be a file of less than 8 MiB"),
        (
            pack({ARCHIVE: pack(WHOLE | {FILES["tweets"]: "/etc/passwd"})}),
            "should be a file of less than 8 MiB",
        ),
        (pack({ARCHIVE: pack(WHOLE)[:-300]}), "is not an archive"),
        (
            pack({ARCHIVE: pack(WHOLE | {FILES["tweets"]: bytes(9 << 20)})}),
            "should be a file of less than 8 MiB",
        ),
        (gzip.compress(b"")[:-4], "is not an archive"),
    ],
    ids=["lacks", "no archive", "link", "link within", "cut within", "large", "cut"],
)
def test_damaged_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        take(tmp_path, monkeypatch, content)
    assert not (tmp_path / "in").exists() or not list((tmp_path / "in").iterdir())


def test_another_package_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="its sha256 should be 5d7c06e0"):
        extract(tmp_path / "s.tar.gz", tmp_path / "standin_text")


def test_where_the_data_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIBENCH_DATA", str(tmp_path))
    assert data_folder("a") == tmp_path / "a"
    with pytest.raises(DataError, match=f"{tmp_path}/standin_text.*install.sh data"):
        tasks["standin_text"]()
    monkeypatch.delenv("BIBENCH_DATA")
    assert data_folder("a") == Path.home() / ".cache/bibench_tvm/data/a"
