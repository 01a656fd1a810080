"""The page of the zoo is what the program writes, and its bytes are for a target that it names."""

from pathlib import Path

from benchmarks.zoo import BLOCKS, SIZED_FOR, TAIL, Entry, _sizing, page
from bibench_tvm.jobs.job import Job

PAGE = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text()


def test_the_page_says_for_what_its_bytes_are() -> None:
    entry = Entry(
        task="standin_speech",
        arch="dfsmn@small",
        algorithm="fp32",
        metric="accuracy",
        before=0.5,
        after=0.5,
        size_bytes=1234,
        costs={"host": "1 ms"},
        waypoints=[],
        command=[],
        checkpoint=Path(),
    )
    (head,) = (line for line in page([entry], "").splitlines() if line.startswith("| network"))
    assert head in PAGE and f"bytes, {SIZED_FOR}" in head
    assert TAIL.format(sized_for=SIZED_FOR) in PAGE
    assert all(block.arch in PAGE for block in BLOCKS)


def test_what_is_sized_is_what_was_trained() -> None:
    command = [
        "bibench_tvm.compile",
        "--checkpoint",
        "c.pt",
        "--target",
        "host",
        "--verify",
        "1",
        "--out",
        "o",
    ]
    sized = _sizing(Job(name="compile/host/a/b", command=command, needs=["a/b"]), Path("jobs"))
    assert sized.name == "size/a/b" and sized.needs == ["a/b"]
    assert sized.command[:7] == [*command[:4], SIZED_FOR, "--verify", "0"] and sized.command[-1] != "o"
