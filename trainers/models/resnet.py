"""Residual networks (He et al., 2016, "Deep Residual Learning for Image Recognition", CVPR,
arXiv:1512.03385).

As the paper has them: the float architecture, Hardtanh as the activation everywhere, and projections (1x1
convolution and batch normalisation) where a shortcut changes shape, so that they are binarized too.
Parameters are named as in torchvision, whose pretrained weights of resnet18 and resnet34 therefore load.
"""

from torch import Tensor, nn

from trainers.models import models, register_model
from trainers.models.images import ImageNetwork, is_cifar


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, in, H, W) -> (N, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activation = nn.Hardtanh()
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
            if stride != 1 or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(y)) + shortcut)


def make_stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """So many basic blocks, the first with the stride: (N, in, H, W) -> (N, out, H/stride, W/stride)."""
    later = (BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride), *later)


class ResNet(ImageNetwork):
    """Stem, stages of basic blocks that double the width and halve the extent, mean over positions,
    classifier.

    Args:
        blocks: basic blocks of each stage.
        width: channels of the stem and of the first stage.
        stem: "imagenet" (7x7 convolution with stride 2, then max-pooling) or "cifar" (3x3 with stride 1).

    Raises:
        ValueError: another stem.
    """

    def __init__(self, blocks: list[int], width: int, stem: str, num_classes: int, in_channels: int) -> None:
        imagenet = not is_cifar(stem)
        super().__init__(in_channels, 224 if imagenet else 32)
        kernel, stride = (7, 2) if imagenet else (3, 1)
        self.conv1 = nn.Conv2d(in_channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation = nn.Hardtanh()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        self.stages: list[str] = []
        channels = width
        for index, count in enumerate(blocks):
            wider = width * 2**index
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], make_stage(channels, wider, count, 2 if index else 1))
            channels = wider
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.activation(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.fc(self.avgpool(x).flatten(1))


@register_model
def resnet18(num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet") -> nn.Module:
    """ResNet-18 of table 1: (N, 3, 224, 224) -> (N, 1000); with the stem "cifar" of (N, 3, 32, 32)."""
    return ResNet([2, 2, 2, 2], 64, stem, num_classes, in_channels)


@models.register("resnet18@small")
def resnet18_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10): one block of each stage, a quarter of the width, the stem of CIFAR."""
    return ResNet([1, 1, 1, 1], 16, "cifar", num_classes, in_channels)


@register_model
def resnet20(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-20 for CIFAR-10, of section 4.2: (N, 3, 32, 32) -> (N, 10)."""
    return ResNet([3, 3, 3], 16, "cifar", num_classes, in_channels)


@models.register("resnet20@small")
def resnet20_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10): one block of each stage, half the width."""
    return ResNet([1, 1, 1], 8, "cifar", num_classes, in_channels)


@register_model
def resnet34(num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet") -> nn.Module:
    """ResNet-34 of table 1: (N, 3, 224, 224) -> (N, 1000); with the stem "cifar" of (N, 3, 32, 32)."""
    return ResNet([3, 4, 6, 3], 64, stem, num_classes, in_channels)


@models.register("resnet34@small")
def resnet34_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10): six blocks, a quarter of the width, the stem of CIFAR."""
    return ResNet([1, 2, 2, 1], 16, "cifar", num_classes, in_channels)
