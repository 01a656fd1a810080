"""Faster R-CNN (Ren et al., 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", NeurIPS, arXiv:1506.01497) on ResNet-18, cut as He et al. (2016, arXiv:1512.03385, appendix A) cut
their networks: up to the third stage for the whole image, the fourth for each proposal.

Two networks, so that each can be compiled, and between them `trainers.proposals`, which is arithmetic of
boxes. The number of proposals is fixed. RoIAlign in the place of RoI pooling, boxes refined alike for all
classes."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.matching import assign, box_loss, centres, corners, decode, match, objects
from trainers.models import models, register_model
from trainers.models.images import ImageNetwork
from trainers.models.resnet import make_stage
from trainers.proposals import BINS, anchors, propose, roi_align

SCALES = (128 / 600, 256 / 600, 512 / 600)  # of the anchors, to the image's side, which the paper makes 600
RATIOS = (0.5, 1.0, 2.0)
OBJECT, NOTHING = 0.7, 0.3  # overlaps from which on an anchor is one, and up to which it is none
FOREGROUND = 0.5  # the overlap from which on a proposal is what is there
OVERLAP = 0.7  # of proposals, at most
SAMPLED = 128  # anchors of an image to train on, half of them objects at most

# To find the heads they need not be looked into, and cannot be.
torch.fx.wrap("propose")
torch.fx.wrap("roi_align")


class ImageStage(ImageNetwork):
    """(N, in_channels, S, S) -> the map (N, 4 width, S/16, S/16), and for each anchor whether it holds an
    object (N, A), as a logit, and its deltas (N, A, 4)."""

    def __init__(self, blocks: list[int], width: int, in_channels: int, image_size: int) -> None:
        super().__init__(in_channels, image_size)
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation = nn.Hardtanh()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = make_stage(width, width, blocks[0], 1)
        self.layer2 = make_stage(width, 2 * width, blocks[1], 2)
        self.layer3 = make_stage(2 * width, 4 * width, blocks[2], 2)
        self.channels = 4 * width
        self.near = nn.Sequential(
            nn.Conv2d(self.channels, self.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(self.channels),
            nn.Hardtanh(),
        )
        boxes = len(SCALES) * len(RATIOS)
        self.objectness = nn.Conv2d(self.channels, boxes, 1)
        self.deltas = nn.Conv2d(self.channels, 4 * boxes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.maxpool(self.activation(self.bn1(self.conv1(x))))
        features = self.layer3(self.layer2(self.layer1(x)))
        near = self.near(features)
        objectness = self.objectness(near).permute(0, 2, 3, 1).flatten(1)
        return features, objectness, self.deltas(near).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))


class ProposalStage(nn.Module):
    """The features of proposals (R, channels, 7, 7) -> the probabilities of classes (R, num_classes + 1), the
    background first, and deltas (R, 4). In training logits for the probabilities.

    Args:
        proposals: of an image.
    """

    def __init__(self, blocks: int, channels: int, proposals: int, num_classes: int) -> None:
        super().__init__()
        self.input_shape = (proposals, channels, BINS, BINS)
        self.layer4 = make_stage(channels, 2 * channels, blocks, 2)
        self.logits = nn.Linear(2 * channels, num_classes + 1)
        self.deltas = nn.Linear(2 * channels, 4)

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return (torch.zeros(self.input_shape),)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layer4(x).mean((2, 3))
        logits = self.logits(x)
        return logits if self.training else logits.softmax(-1), self.deltas(x)


class FasterRCNN(nn.Module):
    """(N, in_channels, S, S) -> boxes (N, proposals, 4), their x1, y1, x2, y2 in shares of the image, and the
    probabilities of classes (N, proposals, num_classes + 1), the background first. In training what the first
    stage returns, for `loss`.

    Attributes:
        first, second: the two stages, each to be exported and compiled by itself.
        proposals: of an image; candidates: the anchors that they are chosen from.

    Args:
        blocks: of the four stages of the ResNet; width: channels of the first.
    """

    anchors: Tensor
    stays_float = ("first.conv1", "first.objectness", "first.deltas", "second.logits", "second.deltas")

    def __init__(
        self,
        blocks: list[int],
        width: int,
        proposals: int,
        candidates: int,
        num_classes: int,
        in_channels: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.first = ImageStage(blocks[:3], width, in_channels, image_size)
        extent = -(-image_size // 16)
        # From numpy, and so with its values where the network is built without any.
        self.register_buffer(
            "anchors", torch.from_numpy(anchors(extent, extent, SCALES, RATIOS)), persistent=False
        )
        self.proposals, self.candidates = min(proposals, len(self.anchors)), candidates
        self.second = ProposalStage(blocks[3], self.first.channels, self.proposals, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return self.first.example_inputs

    def propose(self, objectness: Tensor, deltas: Tensor) -> Tensor:
        """See `trainers.proposals.propose`."""
        priors = self.anchors.to(deltas.device)
        return propose(objectness, deltas, priors, self.candidates, self.proposals, OVERLAP)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features, objectness, deltas = self.first(x)
        if self.training:
            return features, objectness, deltas
        if torch.compiler.is_exporting():
            raise NotImplementedError("it is two networks, first and second, each to be exported by itself")
        proposed = self.propose(objectness, deltas)
        scores, moved = self.second(roi_align(features, proposed))
        boxes = decode(moved.unflatten(0, (-1, self.proposals)), centres(proposed))
        return boxes, scores.unflatten(0, (-1, self.proposals))

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Of the outputs in training: cross entropy and smooth L1 of some anchors, and of some proposals, for
        which the second stage runs here.

        Args:
            targets: "boxes" float32 (N, M, 4) in shares of the image, "labels" int64 (N, M) from 0 on, -1
                for none, "difficult" bool (N, M), which are not trained on.
        """
        features, objectness, deltas = outputs
        truths = list(objects(targets))
        total = self._loss_of_anchors(objectness, deltas, truths)
        proposed = self.propose(objectness.detach(), deltas.detach())
        rois, wanted, classes = [], [], []
        for found, (boxes, labels) in zip(proposed, truths, strict=True):
            candidates = torch.cat([boxes, found])
            index, _ = match(candidates, boxes, FOREGROUND, each=False)
            chosen = draw(index >= 0, index < 0, self.proposals // 2, self.proposals // 4)
            rois.append(candidates[chosen])
            assigned = assign(index[chosen], boxes, labels, centres(rois[-1]))
            wanted.append(assigned[0])
            classes.append(assigned[1])
        logits, moved = self.second(roi_align(features, torch.stack(rois)))
        found, positive = torch.cat(classes), torch.cat(classes) > 0
        total = total + F.cross_entropy(logits, found)
        return total + box_loss(moved[positive], torch.cat(wanted)[positive]) / len(found)

    def _loss_of_anchors(
        self, objectness: Tensor, deltas: Tensor, truths: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        priors = self.anchors.to(deltas.device)
        total = objectness.new_zeros(())
        for scores, moved, (boxes, labels) in zip(objectness, deltas, truths, strict=True):
            index, largest = match(corners(priors), boxes, OBJECT)
            chosen = draw(index >= 0, (index < 0) & (largest < NOTHING), SAMPLED, SAMPLED // 2)
            wanted, classes = assign(index[chosen], boxes, labels, priors[chosen])
            positive = classes > 0
            entropy = F.binary_cross_entropy_with_logits(scores[chosen], positive.to(scores), reduction="sum")
            total = total + (entropy + box_loss(moved[chosen][positive], wanted[positive])) / len(chosen)
        return total / len(truths)


def draw(positive: Tensor, negative: Tensor, count: int, most: int) -> Tensor:
    """Indices of `count` at random, or of all where there are fewer: positives, `most` at most, and
    negatives; more positives only where there are too few of these."""
    ours, others = (
        places[torch.randperm(len(places), device=places.device)]
        for places in (positive.nonzero().flatten(), negative.nonzero().flatten())
    )
    return torch.cat([ours[:most], others, ours[most:]])[:count]


@register_model
def faster_rcnn(num_classes: int = 20, in_channels: int = 3, image_size: int = 300) -> nn.Module:
    """Faster R-CNN on ResNet-18: (N, 3, 300, 300) -> (N, 100, 4) and (N, 100, 21)."""
    return FasterRCNN([2, 2, 2, 2], 64, 100, 1000, num_classes, in_channels, image_size)


@models.register("faster_rcnn@small")
def faster_rcnn_small(num_classes: int = 20, in_channels: int = 3, image_size: int = 128) -> nn.Module:
    """(N, 3, 128, 128) -> (N, 32, 4) and (N, 32, 21): one block of each stage, a quarter of the width."""
    return FasterRCNN([1, 1, 1, 1], 16, 32, 200, num_classes, in_channels, image_size)
