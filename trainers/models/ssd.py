"""SSD (Liu et al., 2016, "SSD: Single Shot MultiBox Detector", ECCV, arXiv:1512.02325) on VGG-16 (Simonyan
and Zisserman, 2015, arXiv:1409.1556).

As the paper and its Caffe configuration for VOC have it, but that it can be binarized: every convolution but
the heads has batch normalisation in place of a bias (0.03 % more parameters) and Hardtanh in place of ReLU,
and the maximum is taken before both, since after a Hardtanh nearly every window's maximum is positive."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.matching import assign, box_loss, corners, decode, hard_negatives, match, objects
from trainers.models import models, register_model
from trainers.models.images import ImageNetwork

OVERLAP = 0.5  # from which on a default box stands for an object
FIRST_SCALE, LEAST_RATIO, MOST_RATIO = 10, 20, 90  # of a default box's side to the image's, in percent


def default_boxes(extents: Sequence[int], steps: Sequence[float]) -> np.ndarray:
    """Float32 (K, 4), centres and sizes in shares of the image, which they may leave: map by map, row by row,
    at each place a square, a larger one, and one for each aspect ratio and its inverse.

    Args:
        extents: of the maps, at least three; steps: from one place to the next, in shares of the image.
    """
    between = (MOST_RATIO - LEAST_RATIO) // (len(extents) - 2)
    scales = [FIRST_SCALE, *range(LEAST_RATIO, LEAST_RATIO + between * len(extents), between)]
    found = []
    for index, (extent, step) in enumerate(zip(extents, steps, strict=True)):
        small, large = scales[index] / 100, scales[index + 1] / 100
        sizes = [(small, small), ((small * large) ** 0.5,) * 2]
        for ratio in aspect_ratios(index, len(extents)):
            wide, narrow = small * ratio**0.5, small / ratio**0.5
            sizes += [(wide, narrow), (narrow, wide)]
        y, x = np.mgrid[:extent, :extent]
        places = (np.stack([x, y], -1).reshape(-1, 1, 2) + 0.5) * step
        shape = (extent * extent, len(sizes), 2)
        both = np.broadcast_to(places, shape), np.broadcast_to(np.array(sizes), shape)
        found.append(np.concatenate(both, -1).reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)


def aspect_ratios(index: int, maps: int) -> list[int]:
    """Of the boxes of a map: the first and the last two have fewer."""
    return [2] if index in (0, maps - 2, maps - 1) else [2, 3]


def layer(in_channels: int, out_channels: int, kernel: int = 3, **geometry: Any) -> nn.Sequential:
    """A convolution, batch normalisation, Hardtanh."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, bias=False, **geometry)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.Hardtanh())


def pooled(in_channels: int, out_channels: int, pool: nn.Module) -> nn.Sequential:
    """The same with a maximum after the convolution, which keeps the extent."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, *after(pool, out_channels))


def after(pool: nn.Module, channels: int) -> list[nn.Module]:
    return [pool, nn.BatchNorm2d(channels), nn.Hardtanh()]


class L2Norm(nn.Module):
    """(N, C, H, W) scaled at each place to a length that each channel learns, 20 at first (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 20.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.normalize(x)


class SSD(ImageNetwork):
    """(N, in_channels, S, S) -> boxes (N, K, 4), their x1, y1, x2, y2 in shares of the image, and the
    probabilities of classes (N, K, num_classes + 1), the background first. In training the deltas of
    `trainers.matching` and the logits instead, for `loss`.

    VGG-16 up to conv5_3 with its two linear layers as convolutions, and pairs of convolutions that halve the
    extent until it is less than 3. Six maps have heads for an image of 300, four for one of 128.

    Args:
        width: channels of the first layer; dilation: of the layer that was VGG's first linear one.
    """

    default_boxes: Tensor

    def __init__(
        self, width: int, dilation: int, num_classes: int, in_channels: int, image_size: int
    ) -> None:
        super().__init__(in_channels, image_size)
        two, four, eight = 2 * width, 4 * width, 8 * width
        self.early = nn.Sequential(
            layer(in_channels, width, padding=1),
            pooled(width, width, nn.MaxPool2d(2)),
            layer(width, two, padding=1),
            pooled(two, two, nn.MaxPool2d(2)),
            layer(two, four, padding=1),
            layer(four, four, padding=1),
            pooled(four, four, nn.MaxPool2d(2, ceil_mode=True)),
            layer(four, eight, padding=1),
            layer(eight, eight, padding=1),
            nn.Conv2d(eight, eight, 3, padding=1, bias=False),
        )
        self.first_map = nn.Sequential(nn.BatchNorm2d(eight), nn.Hardtanh(), L2Norm(eight))
        self.late = nn.Sequential(
            *after(nn.MaxPool2d(2), eight),
            layer(eight, eight, padding=1),
            layer(eight, eight, padding=1),
            pooled(eight, eight, nn.MaxPool2d(3, 1, 1)),
            layer(eight, 2 * eight, padding=dilation, dilation=dilation),
            layer(2 * eight, 2 * eight, 1),
        )
        first = -(-(image_size // 4) // 2)
        extents, steps, channels = [first, first // 2], [8 / image_size, 16 / image_size], [eight, 2 * eight]
        self.extras = nn.ModuleList()
        while (extent := extents[-1]) >= 3:
            wide = eight if not self.extras else four
            strided = extent > 5
            self.extras.append(
                nn.Sequential(
                    layer(channels[-1], wide // 2, 1),
                    layer(wide // 2, wide, stride=1 + strided, padding=int(strided)),
                )
            )
            channels.append(wide)
            extents.append((extent + 1) // 2 if strided else extent - 2)
            steps.append(2 * steps[-1] if strided else 1 / extents[-1])
        self.deltas, self.logits = nn.ModuleList(), nn.ModuleList()
        for index, wide in enumerate(channels):
            boxes = 2 + 2 * len(aspect_ratios(index, len(channels)))
            self.deltas.append(nn.Conv2d(wide, boxes * 4, 3, padding=1))
            self.logits.append(nn.Conv2d(wide, boxes * (num_classes + 1), 3, padding=1))
        self.num_classes = num_classes
        # From numpy, and so with its values where the network is built without any.
        self.register_buffer(
            "default_boxes", torch.from_numpy(default_boxes(extents, steps)), persistent=False
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.early(x)
        maps = [self.first_map(x)]
        x = self.late(x)
        maps.append(x)
        for extra in self.extras:
            x = extra(x)
            maps.append(x)
        deltas, logits = _all_rows(self.deltas, maps, 4), _all_rows(self.logits, maps, self.num_classes + 1)
        if self.training:
            return deltas, logits
        return decode(deltas, self.default_boxes.to(deltas.device)), logits.softmax(-1)

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Of the outputs in training: cross entropy of the default boxes that stand for an object and of
        three times as many others, and smooth L1 of the former's deltas, for each such box.

        Args:
            targets: "boxes" float32 (N, M, 4) in shares of the image, "labels" int64 (N, M) from 0 on, -1
                for none, "difficult" bool (N, M), which are not trained on.
        """
        deltas, logits = outputs
        priors = self.default_boxes.to(deltas.device)
        assigned = []
        for boxes, labels in objects(targets):
            index, _ = match(corners(priors), boxes, OVERLAP)
            assigned.append(assign(index, boxes, labels, priors))
        wanted, classes = (torch.stack(parts) for parts in zip(*assigned, strict=True))
        positive = classes > 0
        entropy = F.cross_entropy(logits.movedim(2, 1), classes, reduction="none")
        chosen = positive | hard_negatives(entropy.detach(), positive)
        total = entropy[chosen].sum() + box_loss(deltas[positive], wanted[positive])
        return total / positive.sum().clamp(min=1)


def _all_rows(heads: nn.ModuleList, maps: Sequence[Tensor], columns: int) -> Tensor:
    """What the heads say of each default box: (N, K, columns)."""
    found = [head(x).permute(0, 2, 3, 1).flatten(1) for head, x in zip(heads, maps, strict=True)]
    return torch.cat(found, 1).unflatten(1, (-1, columns))


@register_model
def ssd300(num_classes: int = 20, in_channels: int = 3, image_size: int = 300) -> nn.Module:
    """SSD300 of the paper: (N, 3, 300, 300) -> (N, 8732, 4) and (N, 8732, 21)."""
    return SSD(64, 6, num_classes, in_channels, image_size)


@models.register("ssd300@small")
def ssd300_small(num_classes: int = 20, in_channels: int = 3, image_size: int = 128) -> nn.Module:
    """(N, 3, 128, 128) -> (N, 1488, 4) and (N, 1488, 21): an eighth of the width."""
    return SSD(8, 2, num_classes, in_channels, image_size)
