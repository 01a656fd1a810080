"""ReActNet-A (Liu et al., 2020, "ReActNet: Towards Precise Binary Neural Network with Generalized Activation
Functions", ECCV, arXiv:2003.03488): MobileNetV1 (Howard et al., 2017, arXiv:1704.04861, table 1) with a
shortcut around every convolution and RPReLU behind it. Not of the BiBench paper.

The convolutions are float here; the thresholds before their signs (RSign) belong to the algorithm "reactnet",
with which `binarize` gives the network of the paper."""

import torch
from torch import Tensor, nn

from trainers.models import models, register_model
from trainers.models.images import ImageNetwork, is_cifar

# Of MobileNetV1's table 1: channels and stride of each pair of a 3x3 and a 1x1 convolution.
BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


class RPReLU(nn.Module):
    """prelu(x - gamma) + zeta with learned shifts and slope for each channel; (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.zeta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(x - self.gamma) + self.zeta


class Block(nn.Module):
    """A 3x3 and a 1x1 convolution, each with a shortcut: (N, in, H, W) -> (N, out, H/stride, W/stride).

    Where the stride is 2 the first shortcut is a mean of 2x2; where the channels double (`out` is twice `in`)
    there are two 1x1 convolutions of `in` channels, each with its shortcut, side by side.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(in_channels, in_channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(in_channels)
        self.shortcut = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.activation3 = RPReLU(in_channels)
        copies = out_channels // in_channels
        self.conv1 = nn.ModuleList(nn.Conv2d(in_channels, in_channels, 1, bias=False) for _ in range(copies))
        self.bn1 = nn.ModuleList(nn.BatchNorm2d(in_channels) for _ in range(copies))
        self.activation1 = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation3(self.bn3(self.conv3(x)) + self.shortcut(x))
        halves = [bn(conv(x)) + x for conv, bn in zip(self.conv1, self.bn1, strict=True)]
        return self.activation1(halves[0] if len(halves) == 1 else torch.cat(halves, 1))


class ReActNet(ImageNetwork):
    """Stem, blocks, mean over positions, classifier.

    Args:
        blocks: as `BLOCKS`, each of as many channels as the one before or of twice as many.
        width: channels of the stem; stride: of the stem; extent: of the image.
    """

    def __init__(
        self,
        blocks: list[tuple[int, int]],
        width: int,
        extent: int,
        stride: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__(in_channels, extent)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.blocks = nn.Sequential()
        channels = width
        for wider, stride in blocks:
            self.blocks.append(Block(channels, wider, stride))
            channels = wider
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.blocks(self.stem(x))).flatten(1))


@register_model
def reactnet_a(num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet") -> nn.Module:
    """ReActNet-A: (N, 3, 224, 224) -> (N, 1000); with the stem "cifar" of (N, 3, 32, 32), whose
    extent the stem and the first strided block leave as it is."""
    if is_cifar(stem):
        return ReActNet([BLOCKS[0], (128, 1), *BLOCKS[2:]], 32, 32, 1, num_classes, in_channels)
    return ReActNet(BLOCKS, 32, 224, 2, num_classes, in_channels)


@models.register("reactnet_a@small")
def reactnet_a_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10): the first six blocks, a quarter of the width."""
    blocks = [(width // 4, stride) for width, stride in BLOCKS[:6]]
    return ReActNet(blocks, 8, 32, 1, num_classes, in_channels)
