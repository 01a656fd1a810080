"""How well objects are found: the average precision of VOC 2007 (Everingham et al., 2010, "The Pascal Visual
Object Classes (VOC) Challenge", IJCV) and of COCO (Lin et al., 2014, arXiv:1405.0312)."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from trainers.boxes import area, clip, iou, survivors

SURE = 0.01  # the probability from which on a box counts
OVERLAP = 0.45  # of two boxes of a class, above which only the better one counts
MOST_OF_CLASS = 400  # boxes of a class that are looked at
MOST = 200  # detections of an image


class Detections(NamedTuple):
    """Those of one image: boxes (D, 4), scores (D,) that fall, labels int64 (D,) from 0."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def check_outputs(outputs: tuple[Tensor, Tensor], classes: int) -> None:
    """Raise ValueError where these are not what a network that finds objects of so many classes gives."""
    shapes = [tuple(part.shape) for part in outputs]
    if len(shapes) != 2 or shapes[0][2:] != (4,) or shapes[1] != (*shapes[0][:2], 1 + classes):
        raise ValueError(
            f"The outputs should be boxes (N, K, 4) and probabilities (N, K, {1 + classes}), not {shapes}."
        )


def detect(boxes: Tensor, scores: Tensor, most: int = MOST) -> Detections:
    """What a network found in an image (Liu et al., 2016, section 2.2): of each class the best boxes that do
    not overlap, and of all these the best.

    A box without area and a probability that is no number count for nothing. Of equal ones that class comes
    first which does, and in it that box.

    Args:
        boxes: (K, 4) in shares of the image, outside of which they are cut off; scores: (K, 1 + classes),
            probabilities, the first that there is nothing.
    """
    boxes, sure = clip(boxes.float()), scores.float()[:, 1:].T
    usable = (sure > SURE) & (area(boxes) > 0)
    some = usable.any(0)
    boxes, sure = boxes[some], torch.where(usable, sure, 0)[:, some]
    count = min(MOST_OF_CLASS, int(usable.sum(1).amax()))
    ranked, order = sure.sort(descending=True, stable=True)
    ranked, chosen = ranked[:, :count], boxes[order[:, :count]]
    labels, places = (survivors(iou(chosen, chosen) > OVERLAP) & (ranked > 0)).nonzero(as_tuple=True)
    best = ranked[labels, places].argsort(descending=True, stable=True)[:most]
    labels, places = labels[best], places[best]
    return Detections(chosen[labels, places], ranked[labels, places], labels)


class VocAP(Metric):
    """The mean over classes of the average precision at an overlap of 1/2, as VOC 2007's development kit has
    it: over 11 points of recall, of the highest precision from each on.

    A detection is of that object of its class that it overlaps most, and right if it is the first, by its
    score, of this object. It is neither right nor wrong if the object is difficult.

    The kit's boxes of whole pixels have their last pixel in them. Boxes that end where it does, at x2 =
    xmax / width and begin at x1 = (xmin - 1) / width, overlap the same.
    """

    higher_is_better = True
    full_state_update = False
    count: Tensor
    scores: list[Tensor]
    labels: list[Tensor]
    right: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("scores", "labels", "right"):  # of each detection that is not of a difficult object
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, outputs: tuple[Tensor, Tensor], targets: dict[str, Tensor]) -> None:
        check_outputs(outputs, len(self.count))
        for boxes, scores, truth, labels, difficult in zip(
            *outputs, targets["boxes"], targets["labels"], targets["difficult"], strict=True
        ):
            real = labels >= 0
            found = detect(boxes, scores)
            right, counts = match(found, truth[real], labels[real], difficult[real])
            self.scores.append(found.scores[counts])
            self.labels.append(found.labels[counts])
            self.right.append(right[counts])
            self.count += labels[real & ~difficult].bincount(minlength=len(self.count))

    def by_class(self) -> Tensor:
        """The average precision of each class, float64 (C,); NaN where nothing is there to be found."""
        scores, labels, right = (
            dim_zero_cat(state) if len(state) else torch.zeros(0)
            for state in (self.scores, self.labels, self.right)
        )
        order = scores.argsort(descending=True, stable=True)
        return torch.tensor(
            [
                eleven_points(right[order][labels[order] == label], count)
                for label, count in enumerate(self.count.tolist())
            ],
            dtype=torch.float64,
        )

    def compute(self) -> Tensor:
        return self.by_class().nanmean().nan_to_num(0).float()


def match(found: Detections, truth: Tensor, labels: Tensor, difficult: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the detections are right, and which count, both bool (D,), by VOC's rules."""
    if not len(truth):
        return torch.zeros_like(found.labels, dtype=torch.bool), torch.ones_like(found.labels).bool()
    overlaps = iou(found.boxes.double(), truth.double())
    most, whose = overlaps.where(found.labels[:, None] == labels, -1).max(1)
    hit = most >= 0.5
    of_each = torch.nn.functional.one_hot(whose, len(truth)) * hit[:, None]
    first = of_each.cumsum(0)[torch.arange(len(whose)), whose] == 1
    return hit & first & ~difficult[whose], ~(hit & difficult[whose])


def eleven_points(right: Tensor, count: int) -> float:
    """The mean over recalls of 0, 0.1, ..., 1 of the highest precision at that recall or more.

    Args:
        right: bool (D,), of detections by falling scores; count: of what is there; NaN if that is nothing.
    """
    if not count:
        return float("nan")
    found = right.long().cumsum(0)
    precision = found.double() / torch.arange(1, len(right) + 1)
    highest = torch.cat([precision.flip(0).cummax(0).values.flip(0), precision.new_zeros(1)])
    points = torch.searchsorted(10 * found, count * torch.arange(11))  # in whole numbers, since 0.3 is none
    return highest[points].mean().item()


class CocoAP(Metric):
    """COCO's, by pycocotools: "mAP", the mean over overlaps of 0.5, 0.55, ..., 0.95 and over classes, and
    "mAP@.5". Of an image 100 detections count."""

    higher_is_better = True
    full_state_update = False
    images: list[Tensor]
    found: list[Tensor]
    truth: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("images", [], dist_reduce_fx="cat")
        # Float64 (., 7): image, class, x1, y1, x2, y2, and the score or whether it is a crowd.
        for name in ("found", "truth"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, outputs: tuple[Tensor, Tensor], targets: dict[str, Tensor]) -> None:
        """Each image has a number of its own in targets["image"]."""
        check_outputs(outputs, self.classes)
        self.images.append(targets["image"])
        for boxes, scores, image, truth, labels, crowd in zip(
            *outputs, *(targets[k] for k in ("image", "boxes", "labels", "difficult")), strict=True
        ):
            real = labels >= 0
            best = detect(boxes, scores, 100)
            self.found.append(_rows(image, best.labels, best.boxes, best.scores))
            self.truth.append(_rows(image, labels[real], truth[real], crowd[real]))

    def compute(self) -> dict[str, Tensor]:
        found, truth = (
            dim_zero_cat(state).cpu().numpy() if len(state) else np.zeros((0, 7))
            for state in (self.found, self.truth)
        )
        images = dim_zero_cat(self.images).tolist() if len(self.images) else []
        precision = average_precisions(found, truth, images, self.classes)
        return {
            "mAP": torch.tensor(_mean(precision), dtype=torch.float32),
            "mAP@.5": torch.tensor(_mean(precision[0]), dtype=torch.float32),
        }


def average_precisions(
    found: np.ndarray, truth: np.ndarray, images: list[int], classes: int, recalls: np.ndarray | None = None
) -> np.ndarray:
    """(overlaps, classes), of 0.5 to 0.95, -1 where nothing is there to be found, by pycocotools.

    Args:
        found, truth: as of CocoAP; recalls: the points of which the mean is taken, None for COCO's 101.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(truth, images, classes), _index(found, images, classes), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        if recalls is not None:
            evaluation.params.recThrs = recalls
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, 0].mean(1)


def _index(rows: np.ndarray, images: list[int], classes: int) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [
            {
                "id": place,  # from 1, as 0 stands for no match
                "image_id": int(image),
                "category_id": int(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "score": last,
                "iscrowd": int(last),  # which nobody asks of a detection
            }
            for place, (image, label, x1, y1, x2, y2, last) in enumerate(rows, 1)
        ],
    }
    coco.createIndex()
    return coco


def _rows(image: Tensor, labels: Tensor, boxes: Tensor, last: Tensor) -> Tensor:
    columns = (image.expand(len(labels)), labels, *boxes.unbind(1), last)
    return torch.stack([column.double() for column in columns], 1)


def _mean(precision: np.ndarray) -> float:
    there = precision[precision > -1]
    return float(there.mean()) if there.size else 0.0
