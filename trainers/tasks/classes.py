"""What tasks that tell classes apart share: cross entropy and the accuracy."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy


class Classification:
    """Outputs (N, num_classes) in float, targets int64 (N,)."""

    sizes: Mapping[str, int | str]
    recipe = "paper"
    metric = "accuracy"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        classes = int(self.sizes["num_classes"])
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes=classes, average="micro")})
