"""A network for text, as small as it can be, and a task for it: neither images nor their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

LENGTH = 8
MARK = 3  # the token that the task is about


class ToyText(nn.Module):
    """Embedding, attention, linear: int64 (N, L) tokens, int64 (N, L) 1, and 0 behind the end -> (N, C)."""

    def __init__(self, num_classes: int, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.1 * torch.randn(length, width))
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.classifier = nn.Linear(width, num_classes)

    @property
    def example_inputs(self) -> dict[str, Tensor]:
        shape = (1, self.length)
        return {
            "input_ids": torch.zeros(shape, dtype=torch.int64),
            "attention_mask": torch.ones(shape).long(),
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.before(self.embedding(input_ids) + self.position)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / x.shape[-1] ** 0.5
        scores = scores.masked_fill((attention_mask == 0)[:, None], -1e4)
        x = x + self.out(self.between(scores.softmax(-1) @ self.value(x)))
        mask = attention_mask[..., None].to(x.dtype)
        return self.classifier((x * mask).sum(1) / mask.sum(1))


def toy_text(num_classes: int = 3, vocabulary: int = 20, length: int = 16, width: int = 16) -> nn.Module:
    return ToyText(num_classes, vocabulary, length, width)


class HasMark:
    """Whether the token MARK is in a sentence of random tokens and length; not behind its end."""

    sizes = {"num_classes": 2, "vocabulary": 10, "length": LENGTH}
    example_inputs: Any = {
        "input_ids": torch.zeros(1, LENGTH, dtype=torch.int64),
        "attention_mask": torch.ones(1, LENGTH, dtype=torch.int64),
    }
    epochs = 4
    recipe = "paper"
    batch_size = 64
    metric = "accuracy"
    licence = published = "of this file"
    identity = "0"

    def __init__(self, data: Path | None = None) -> None:
        self.data = {split: self._make(count, count) for split, count in self.splits.items()}

    @property
    def splits(self) -> dict[str, int]:
        return {"train": 256, "test": 64}

    def _make(self, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(10, (count, LENGTH), generator=generator)
        ids[ids == MARK] = 0
        lengths = torch.randint(4, LENGTH + 1, (count, 1), generator=generator)
        mask = (torch.arange(LENGTH) < lengths).long()
        labels = torch.arange(count) % 2
        places = (torch.rand(count, 1, generator=generator) * lengths).long()
        ids.scatter_(1, torch.where(labels[:, None] == 1, places, LENGTH - 1), MARK)
        labels = ((ids == MARK) & (mask == 1)).any(1).long()
        return ids, mask, labels

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        ids, mask, labels = (values[list(indices)] for values in self.data[split])
        return {"input_ids": ids, "attention_mask": mask}, {"has": labels}

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(outputs, targets["has"])

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": HasAccuracy(num_classes=2, average="micro")})


class HasAccuracy(MulticlassAccuracy):
    """Of targets that are a dictionary."""

    def update(self, outputs: Tensor, targets: dict[str, Tensor]) -> None:
        super().update(outputs, targets["has"])
