"""A stand-in for GLUE: which of four places an English sentence is from - a movie review, a tweet, a product
review or an editorial. What it gives compares with nothing published.

The sentences are those that VADER was judged by (Hutto and Gilbert, 2014, "VADER: A Parsimonious Rule-based
Model for Sentiment Analysis of Social Media Text", ICWSM); `install.sh data` takes them from the source
package of `vaderSentiment` 3.3.2. The split is by a digest of the sentence, so that one that is there twice
is in one part only."""

import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from trainers.tasks import DataError, data_folder, identity_of, read_text, tasks
from trainers.tasks.sentences import encode, example, make_tokenizer, train_vocabulary

SDIST = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"  # its sha256
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {  # by the number of their class
    name: f"hutto_ICWSM_2014/{name}_GroundTruth.txt"
    for name in ("movieReviewSnippets", "tweets", "amazonReviewSnippets", "nytEditorialSnippets")
}
MOST = 8 << 20  # bytes, of what is taken from an archive
VOCABULARY, LENGTH = 4000, 32
REMEDY = "Type: ./install.sh data"


@tasks.register("standin_text")
class StandinText:
    """Tokens of all sentences, int32 (N, 32), in memory: 80 % for training, 10 % each for the rest."""

    example_inputs: Any = example(LENGTH)
    epochs = 4
    batch_size = 64
    recipe = "paper"
    metric = "accuracy"
    licence = (
        "A stand-in of the project's own making. The package vaderSentiment is under the MIT licence; the "
        "sentences in it belong to the people who wrote them, and are not distributed with bibench_tvm."
    )
    published = "https://pypi.org/project/vaderSentiment/3.3.2/#files"

    def __init__(self, data: Path | None = None) -> None:
        folder = Path(data) if data else data_folder("standin_text")
        texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        labels: dict[str, list[int]] = {split: [] for split in texts}
        for label, name in enumerate(FILES):
            for sentence in read_sentences(folder / f"{name}.txt"):
                split = split_of(sentence)
                texts[split].append(sentence)
                labels[split].append(label)
        if empty := [split for split in texts if not texts[split]]:
            raise DataError(f"{folder} has too few sentences: none of them is for {empty[0]}.")
        vocabulary = train_vocabulary(texts["train"], VOCABULARY)
        tokenizer = make_tokenizer(vocabulary, LENGTH)
        self.data = {split: (encode(tokenizer, texts[split]), torch.tensor(labels[split])) for split in texts}
        self.sizes: Mapping[str, int | str] = {
            "num_classes": len(FILES),
            "vocabulary": len(vocabulary),
            "length": LENGTH,
        }
        self.identity = identity_of([folder / f"{name}.txt" for name in FILES], folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(labels) for split, (_, labels) in self.data.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        inputs, labels = self.data[split]
        chosen = torch.as_tensor(indices)
        return {name: values[chosen].long() for name, values in inputs.items()}, labels[chosen]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes=len(FILES), average="micro")})


def split_of(sentence: str) -> str:
    """The split that a sentence belongs to, whatever else there is."""
    tenth = hashlib.sha256(sentence.encode()).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(tenth, "train")


def read_sentences(path: Path) -> list[str]:
    """The sentences of a file whose lines are a number, a mean score and a sentence, with tabs between."""
    sentences = []
    for number, line in enumerate(read_text(path, REMEDY).rstrip("\n").split("\n"), start=1):
        fields = line.split("\t", 2)
        if len(fields) < 3 or not fields[2].strip():
            raise DataError(
                f"Line {number} of {path} should be a number, a score and a sentence, with tabs between them."
            )
        sentences.append(fields[2].strip())
    return sentences


def extract(sdist: Path, folder: Path) -> None:
    """Make `folder`, which is there whole or not at all, of the source package. Raises DataError.

    Nothing is written under a name that the archive chose.
    """
    if folder.exists():
        return
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != SDIST:
        raise DataError(
            f"{sdist} is not the source package of vaderSentiment 3.3.2: its sha256 should be {SDIST}."
        )
    try:
        with tarfile.open(sdist) as outer, tarfile.open(fileobj=_member(outer, ARCHIVE)) as inner:
            contents = {name: _member(inner, member).read() for name, member in FILES.items()}
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{sdist}, or {ARCHIVE} in it, is not an archive.") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        whole = Path(temporary) / folder.name
        whole.mkdir()
        for name, content in contents.items():
            (whole / f"{name}.txt").write_bytes(content)
        os.rename(whole, folder)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """The file `name` of an archive, opened; it is neither a link nor large."""
    try:
        found = archive.getmember(name)
    except KeyError as error:
        raise DataError(f"The source package should hold {name}, and does not.") from error
    file = archive.extractfile(found) if found.isreg() and found.size <= MOST else None
    if file is None:
        raise DataError(f"{name} in the source package should be a file of less than {MOST >> 20} MiB.")
    return file
