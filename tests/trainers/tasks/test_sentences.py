"""WordPiece against the rule: the longest piece that fits, from the left."""

from pathlib import Path

import pytest

from trainers.tasks import DataError
from trainers.tasks.sentences import encode, make_tokenizer, read_vocabulary, train_vocabulary

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##affable", "##aff", "cafe", ",", "Un"]


def vocabulary(*tokens: str) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def test_one_sentence_and_two() -> None:
    tokenizer = make_tokenizer(vocabulary(*TOKENS[:-1]), 8)
    inputs = encode(tokenizer, ["Unaffable, CAFÉ", ("un", "cafe xyz"), ("", "")])
    assert inputs["input_ids"].tolist() == [
        [2, 4, 5, 8, 7, 3, 0, 0],
        [2, 4, 3, 7, 1, 3, 0, 0],
        [2, 3, 3, 0, 0, 0, 0, 0],
    ]
    assert inputs["attention_mask"].tolist() == [[1] * 6 + [0] * 2, [1] * 6 + [0] * 2, [1] * 3 + [0] * 5]
    assert inputs["token_type_ids"][1].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


def test_what_is_too_long_is_cut() -> None:
    tokenizer = make_tokenizer(vocabulary(*TOKENS[:-1]), 6)
    inputs = encode(tokenizer, ["un " * 9, ("un", "cafe " * 9)])
    assert inputs["input_ids"].tolist() == [[2, 4, 4, 4, 4, 3], [2, 4, 3, 7, 7, 3]]


def test_a_vocabulary_with_capitals_keeps_them() -> None:
    assert encode(make_tokenizer(vocabulary(*TOKENS), 4), ["Un un"])["input_ids"].tolist() == [[2, 9, 4, 3]]


def test_training_gives_the_same_vocabulary_every_time() -> None:
    sentences = [f"{a}{b}{c}ing {c}{a}" for a in "abcdefgh" for b in "opqrst" for c in "éxyz"]
    found = train_vocabulary(sentences, 70)
    assert sorted(found.values()) == list(range(70)) and "##ing" in found
    assert all(train_vocabulary(sentences, 70) == found for _ in range(3)), (
        "each has a random hash of its own"
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\nun\n", r"it has no \[SEP\]"),
        ("\n".join([*TOKENS, "un"]).encode(), "each once; it has one twice"),
        (b"[PAD]\n\xff\n", "should be UTF-8 text, but its line 2 is not"),
        (b"", "is empty"),
    ],
    ids=["lacks", "twice", "encoding", "empty"],
)
def test_damaged_vocabularies(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_vocabulary(tmp_path / "vocab.txt", "")


def test_a_published_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*TOKENS, "…"]).encode() + b"\r\n")
    assert read_vocabulary(tmp_path / "vocab.txt", "") == vocabulary(*TOKENS, "…")
