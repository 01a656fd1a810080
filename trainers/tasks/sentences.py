"""What the tasks of text share: WordPiece (Schuster and Nakajima, 2012) as BERT has it, by Hugging Face's
`tokenizers`, and the inputs that BERT takes."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor

from trainers.tasks import DataError, read_text

# Its threads do not go with a process that forks workers, as it says at length.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def read_vocabulary(path: Path, remedy: str) -> dict[str, int]:
    """Token -> its number, of BERT's vocab.txt: a token a line. Raises DataError."""
    tokens = read_text(path, remedy).removesuffix("\n").split("\n")
    vocabulary = {token.rstrip("\r"): number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise DataError(f"{path} should have a token a line, each once; it has one twice.")
    if lacking := [token for token in SPECIAL[:4] if token not in vocabulary]:
        raise DataError(f"{path} is not the vocabulary of a BERT: it has no {lacking[0]}.")
    return vocabulary


def train_vocabulary(sentences: Sequence[str], size: int) -> dict[str, int]:
    """Token -> its number: at most `size` of them, those that the sentences are made of most often."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    # Left to itself, the trainer numbers the letters within words by a random hash, and breaks ties by them.
    letters = tokenizer.normalizer.normalize_str("".join(sorted(set().union(*sentences))))
    inside = [f"##{letter}" for letter in sorted(set(letters)) if not letter.isspace()]
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL + inside, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer.get_vocab()


def make_tokenizer(vocabulary: dict[str, int], length: int) -> Tokenizer:
    """One that gives `length` tokens for a sentence or a pair of them: cut to fit, the longer one first, and
    filled up with [PAD]. Of a vocabulary without capitals the text loses its capitals and accents."""
    capitals = any(token != token.lower() for token in vocabulary if not token.startswith("["))
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=not capitals)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=vocabulary["[PAD]"])
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]]) -> dict[str, Tensor]:
    """BERT's inputs for sentences or pairs: "input_ids", "attention_mask", "token_type_ids", int32 (N, L)."""
    rows = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": torch.tensor([row.ids for row in rows], dtype=torch.int32),
        "attention_mask": torch.tensor([row.attention_mask for row in rows], dtype=torch.int32),
        "token_type_ids": torch.tensor([row.type_ids for row in rows], dtype=torch.int32),
    }


def example(length: int) -> dict[str, Tensor]:
    """A batch of one, int64 (1, L): [PAD] only, none of it masked."""
    ids = torch.zeros(1, length, dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": ids + 1, "token_type_ids": ids.clone()}
