"""MobileNetV2 (Sandler et al., 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR,
arXiv:1801.04381), table 2; Hardtanh in the place of ReLU6.

Parameters are named as in torchvision, whose pretrained weights therefore load."""

from collections.abc import Sequence

from torch import Tensor, nn

from trainers.models import models, register_model
from trainers.models.images import ImageNetwork, is_cifar

# Of table 2: how much wider inside (t), channels (c), blocks (n), stride of the first of them (s).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch normalisation, Hardtanh: (N, in, H, W) -> (N, out, H/stride, W/stride)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.Hardtanh(),
    )


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 on each of them alone, 1x1 to `out_channels` with no activation; a shortcut
    where the shape stays: (N, in, H, W) -> (N, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, wider: int) -> None:
        super().__init__()
        inside = in_channels * wider
        self.shortcut = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential()
        if wider != 1:
            self.conv.append(convolution(in_channels, inside, 1))
        self.conv.extend(
            [
                convolution(inside, inside, 3, stride, inside),
                nn.Conv2d(inside, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(ImageNetwork):
    """Stem, inverted residuals, 1x1 convolution, mean over positions, dropout, classifier.

    Args:
        stages: as `STAGES`.
        stem, last: channels of the first and of the last convolution.
        extent: of the image; stride: of the stem.
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int, int]],
        stem: int,
        last: int,
        extent: int,
        stride: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__(in_channels, extent)
        self.features = nn.Sequential(convolution(in_channels, stem, 3, stride))
        channels = stem
        for wider, width, count, first in stages:
            for block in range(count):
                self.features.append(InvertedResidual(channels, width, 1 if block else first, wider))
                channels = width
        self.features.append(convolution(channels, last, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@register_model
def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet") -> nn.Module:
    """MobileNetV2: (N, 3, 224, 224) -> (N, 1000); with the stem "cifar" of (N, 3, 32, 32),
    whose extent the stem and the first strided stage leave as it is."""
    if is_cifar(stem):
        stages = [STAGES[0], (*STAGES[1][:3], 1), *STAGES[2:]]
        return MobileNetV2(stages, 32, 1280, 32, 1, num_classes, in_channels)
    return MobileNetV2(STAGES, 32, 1280, 224, 2, num_classes, in_channels)


@models.register("mobilenet_v2@small")
def mobilenet_v2_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10): five blocks, half the width."""
    stages = [(t, c // 2, 1 + (c == 32), s) for t, c, _, s in STAGES[:4]]
    return MobileNetV2(stages, 16, 128, 32, 2, num_classes, in_channels)
