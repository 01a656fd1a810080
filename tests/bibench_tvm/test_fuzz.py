"""Damaged and hostile files are networks or one sentence, soon and in little memory: a few of each kind."""

from pathlib import Path

import pytest

from tests.fuzz.files import KINDS, files
from tests.fuzz.reader import Outcome, Reader


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind: str, tmp_path: Path) -> None:
    with Reader() as reader:
        outcomes = [reader.read(kind, path) for path in files(kind, 80, 1, tmp_path)]
    assert [outcome.faults() for outcome in outcomes if outcome.faults()] == []
    assert 0 < sum(outcome.accepted for outcome in outcomes) < len(outcomes)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(False, "Traceback (most recent call last):\nValueError: no\n", 1.0, 0),
        Outcome(False, "This is a fault of the program (KeyError: 'x') --debug shows where.\n", 1.0, 0),
        Outcome(False, "", 1.0, 0),
        Outcome(False, "The file is damaged.\n", 61.0, 0),
        Outcome(False, "The file is damaged.\n", 1.0, 3 << 30),
        Outcome(False, "", 1.0, 0, "it ended the process (-11)"),
    ],
)
def test_what_is_at_fault(outcome: Outcome) -> None:
    assert outcome.faults()


def test_a_sentence_is_no_fault() -> None:
    assert Outcome(False, "Error: The file is damaged.\n", 1.0, 1 << 20).faults() == []
