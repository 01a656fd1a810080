"""How well the parts of shapes are found: the mean intersection over union of ShapeNet's part segmentation
(Yi et al., 2016, "A Scalable Active Framework for Region Annotation in 3D Shape Collections", TOG)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection


class PartIoU(Metric):
    """The mean over the parts of a shape's category, then over shapes.

    A prediction is the best of the parts that the category has. A part that a shape neither has nor is said
    to have counts as 1.

    Args:
        parts: the parts of each category, numbered on from category to category.
        average: "class", the mean over categories of the mean over their shapes (as table 11 of the paper has
            it), or "instance", the mean over all shapes.
    """

    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, parts: Sequence[int], average: str) -> None:
        super().__init__()
        assert average in ("class", "instance")
        self.parts, self.average = tuple(parts), average
        self.add_state("total", torch.zeros(len(parts), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(parts), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Outputs (N, all parts, points) in float; targets int64 (N, points), those of one category a row."""
        first = 0
        for category, own in enumerate(self.parts):
            rows = (targets[:, 0] >= first) & (targets[:, 0] < first + own)
            if rows.any():
                said = F.one_hot(outputs[rows, first : first + own].argmax(1), own).bool()
                true = F.one_hot(targets[rows] - first, own).bool()
                both, either = (said & true).sum(1), (said | true).sum(1)
                iou = torch.where(either == 0, 1, both / either.clamp(min=1)).mean(1)
                self.total[category] += iou.double().sum()
                self.count[category] += len(iou)
            first += own

    def compute(self) -> Tensor:
        seen = self.count > 0
        if self.average == "class":
            return (self.total[seen] / self.count[seen]).mean().float()
        return (self.total.sum() / self.count.sum()).float()


class Segmentation:
    """What tasks that tell the parts of shapes apart share: outputs (N, all parts, points), targets int64
    (N, points)."""

    parts: Sequence[int]
    recipe = "paper"
    metric = "class_miou"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        return MetricCollection({f"{kind}_miou": PartIoU(self.parts, kind) for kind in ("class", "instance")})
