"""GLUE (Wang et al., 2018, arXiv:1804.07461), the nine tasks of the BiBench paper's table 12, from the TSV
files that gluebenchmark.com publishes.

The labels of GLUE's own test files are not public: "test" is GLUE's dev file here, as in most papers, and
there is no split to choose weights by. `vocab.txt`, in the task's folder or the one above it, is the
vocabulary of a published BERT (30,522 tokens for bert-base-uncased); without it, one is made from the
training sentences, and a warning says so. Lines are checked when the files are opened; a batch reads and
tokenises its own."""

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassMatthewsCorrCoef
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef

from trainers.tasks import DataError, data_folder, identity_of, tasks
from trainers.tasks.sentences import encode, example, make_tokenizer, read_vocabulary, train_vocabulary

PUBLISHED = "https://gluebenchmark.com/tasks"
VOCABULARY, TRAINED_ON = 30522, 50_000  # tokens, at most, of as many lines, where there is no vocab.txt
SINGLE, PAIR = 64, 128  # tokens, as in TinyBERT's code for one sentence and two


@dataclass(frozen=True)
class Layout:
    """How a task's files are made.

    Attributes:
        folder: their folder in the download.
        texts: the columns of the one or two sentences.
        label: the column of the label.
        classes: what the labels are called, in the order of their numbers; none for a score from 0 to 5.
        dev: the file that is judged by.
        columns: of files that do not name them in their first line.
        broken: whether lines that lack columns are known, and left out.
    """

    folder: str
    texts: tuple[str, ...]
    label: str = "label"
    classes: tuple[str, ...] = ("0", "1")
    dev: str = "dev.tsv"
    columns: tuple[str, ...] = ()
    broken: bool = False


class Table:
    """A TSV file, of which the places of its lines and their labels are in memory.

    Attributes:
        labels: int64 (N) the numbers of the classes, or float32 (N) the scores.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        starts, labels, left_out = [], [], []
        position = 0
        try:
            with path.open("rb") as file:
                columns = layout.columns
                for number, line in enumerate(file, start=1):
                    start, position = position, position + len(line)
                    if not line.strip():
                        continue
                    fields = _fields(line, path, number)
                    if not columns:
                        columns = tuple(fields)
                        continue
                    if number == 1 + (not layout.columns):
                        self._find(columns, layout)
                    if len(fields) <= self.last:
                        if not layout.broken:
                            raise DataError(
                                f"Line {number} of {path} should have {len(columns)} columns with tabs "
                                f"between them, and has {len(fields)}."
                            )
                        left_out.append(number)
                        continue
                    starts.append(start)
                    labels.append(_number(fields[self.label], layout, path, number))
        except FileNotFoundError as error:
            raise DataError(
                f"There is no {path}. Fetch {layout.folder} from {PUBLISHED}, and name the folder with it."
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        if not starts:
            raise DataError(f"{path} has no samples.")
        if left_out:
            warnings.warn(
                f"{len(left_out)} lines of {path} lack columns and are left out, first line {left_out[0]}.",
                stacklevel=4,
            )
        self.starts = np.array(starts)
        self.labels = torch.tensor(labels, dtype=torch.int64 if layout.classes else torch.float32)

    def _find(self, columns: Sequence[str], layout: Layout) -> None:
        needed = (*layout.texts, layout.label)
        if lacking := [name for name in needed if name not in columns]:
            raise DataError(
                f"{self.path} should have the column {lacking[0]!r}, and has {', '.join(map(repr, columns))}."
            )
        self.texts = [columns.index(name) for name in layout.texts]
        self.label = columns.index(layout.label)
        self.last = max(*self.texts, self.label)

    def read(self, indices: Sequence[int]) -> Iterator[str | tuple[str, str]]:
        """The sentence, or the pair, of each sample."""
        with self.path.open("rb") as file:
            for index in indices:
                file.seek(self.starts[index])
                fields = _fields(file.readline(), self.path, 0)
                first, *rest = (fields[column] for column in self.texts)
                yield (first, rest[0]) if rest else first


class Glue:
    """One of the nine: a network has as many outputs as there are classes, and one for a score."""

    layout: ClassVar[Layout]
    epochs = 3  # as Devlin et al., 2019, appendix A.3
    batch_size = 64
    recipe = "paper"
    metric = "accuracy"
    licence = (
        "The sets of GLUE have licences of their own, most for research only: see where they are published."
    )
    published = PUBLISHED

    def __init__(self, data: Path | None = None) -> None:
        folder = (Path(data) if data else data_folder("glue")).resolve()
        if not (folder / "train.tsv").exists():
            folder /= self.layout.folder
        files = {"train": folder / "train.tsv", "test": folder / self.layout.dev}
        self.tables = {split: Table(path, self.layout) for split, path in files.items()}
        found = [path for path in (folder / "vocab.txt", folder.parent / "vocab.txt") if path.exists()]
        if found:
            vocabulary = read_vocabulary(found[0], "")
        else:
            warnings.warn(
                f"There is no vocab.txt in {folder}: the vocabulary is made from the training sentences, and "
                "published weights of a BERT do not fit it.",
                stacklevel=2,
            )
            table = self.tables["train"]
            texts = table.read(range(min(TRAINED_ON, len(table.labels))))
            vocabulary = train_vocabulary(
                list(itertools.chain.from_iterable([t] if isinstance(t, str) else t for t in texts)),
                VOCABULARY,
            )
        length = SINGLE if len(self.layout.texts) == 1 else PAIR
        self.tokenizer = make_tokenizer(vocabulary, length)
        self.example_inputs: Any = example(length)
        self.sizes: Mapping[str, int | str] = {
            "num_classes": len(self.layout.classes) or 1,
            "vocabulary": max(vocabulary.values()) + 1,
            "length": length,
        }
        self.identity = identity_of([*files.values(), *found[:1]], folder.parent)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(table.labels) for split, table in self.tables.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        table = self.tables[split]
        inputs = encode(self.tokenizer, list(table.read(indices)))
        return {name: values.long() for name, values in inputs.items()}, table.labels[
            torch.as_tensor(indices)
        ]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        count = len(self.layout.classes)
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes=count, average="micro")})


@tasks.register("glue/cola")
class Cola(Glue):
    """Whether a sentence is English, as linguists mark it; by the correlation of Matthews."""

    layout = Layout("CoLA", ("sentence",), columns=("source", "label", "mark", "sentence"))
    metric = "matthews"

    def metrics(self) -> MetricCollection:
        return MetricCollection({"matthews": MulticlassMatthewsCorrCoef(num_classes=2)})


@tasks.register("glue/sst2")
class Sst2(Glue):
    """Whether a phrase of a movie review is positive."""

    layout = Layout("SST-2", ("sentence",))


@tasks.register("glue/mrpc")
class Mrpc(Glue):
    """Whether two sentences of the news say the same."""

    layout = Layout("MRPC", ("#1 String", "#2 String"), "Quality")


class Pearson(PearsonCorrCoef):
    """Of outputs (N, 1) and scores (N); 0 where all outputs are the same."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.flatten().float(), target)

    def compute(self) -> Tensor:
        return super().compute().nan_to_num(0)


class Spearman(SpearmanCorrCoef):
    """Of outputs (N, 1) and scores (N); 0 where all outputs are the same."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.flatten().float(), target)

    def compute(self) -> Tensor:
        return super().compute().nan_to_num(0)


@tasks.register("glue/stsb")
class Stsb(Glue):
    """How alike two sentences are, from 0 to 5; by the mean of both correlations, as GLUE counts it."""

    layout = Layout("STS-B", ("sentence1", "sentence2"), "score", classes=())
    metric = "correlation"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.flatten(), targets)

    def metrics(self) -> MetricCollection:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all targets")  # which are 1,500
            mean = (Pearson() + Spearman()) / 2
            return MetricCollection(
                {"correlation": mean, "pearson": Pearson(), "spearman": Spearman()}, compute_groups=False
            )


@tasks.register("glue/qqp")
class Qqp(Glue):
    """Whether two questions on Quora ask the same. Its files have lines that are cut in two."""

    layout = Layout("QQP", ("question1", "question2"), "is_duplicate", broken=True)


MNLI = ("sentence1", "sentence2"), "gold_label", ("entailment", "neutral", "contradiction")


@tasks.register("glue/mnli_m")
class MnliMatched(Glue):
    """Whether the second sentence follows from the first, judged by the genres that are trained with."""

    layout = Layout("MNLI", *MNLI, dev="dev_matched.tsv")


@tasks.register("glue/mnli_mm")
class MnliMismatched(Glue):
    """Whether the second sentence follows from the first, judged by other genres."""

    layout = Layout("MNLI", *MNLI, dev="dev_mismatched.tsv")


@tasks.register("glue/qnli")
class Qnli(Glue):
    """Whether a sentence has the answer to a question."""

    layout = Layout("QNLI", ("question", "sentence"), classes=("entailment", "not_entailment"))


@tasks.register("glue/rte")
class Rte(Glue):
    """Whether the second sentence follows from the first."""

    layout = Layout("RTE", ("sentence1", "sentence2"), classes=("entailment", "not_entailment"))


def _fields(line: bytes, path: Path, number: int) -> list[str]:
    """The columns of a line. There is no quoting: a quotation mark is one."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} should be UTF-8 text, but its line {number} is not.") from error


def _number(label: str, layout: Layout, path: Path, number: int) -> float:
    """What the label is in numbers."""
    if layout.classes:
        if label in layout.classes:
            return layout.classes.index(label)
        right = "one of " + ", ".join(layout.classes)
    else:
        try:
            score = float(label)
        except ValueError:
            score = math.nan
        if 0 <= score <= 5:
            return score
        right = "a number from 0 to 5"
    raise DataError(f"The label in line {number} of {path} should be {right}, and is {label!r}.")
