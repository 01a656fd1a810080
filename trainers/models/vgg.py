"""VGG-Small for CIFAR-10, the network that binarization papers use (Zhang et al., 2018, "LQ-Nets", ECCV,
arXiv:1807.10029), after Simonyan and Zisserman (2015, arXiv:1409.1556); Hardtanh as the activation."""

from torch import Tensor, nn

from trainers.models import models, register_model
from trainers.models.images import ImageNetwork


class VggSmall(ImageNetwork):
    """Six 3x3 convolutions, two each of `width`, 2 `width` and 4 `width` channels, max-pooling after every
    other one, a classifier."""

    def __init__(self, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__(in_channels, 32)
        self.features = nn.Sequential()
        channels = in_channels
        for wider in (width, 2 * width, 4 * width):
            for pool in (False, True):
                self.features.append(nn.Conv2d(channels, wider, 3, padding=1, bias=False))
                if pool:  # before the activation: after it nearly every window's maximum is positive
                    self.features.append(nn.MaxPool2d(2))
                self.features.extend([nn.BatchNorm2d(wider), nn.Hardtanh()])
                channels = wider
        self.classifier = nn.Linear(channels * 4 * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


@register_model
def vgg_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG-Small for CIFAR-10: (N, 3, 32, 32) -> (N, 10)."""
    return VggSmall(128, num_classes, in_channels)


@models.register("vgg_small@small")
def vgg_small_small(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10): an eighth of the width."""
    return VggSmall(16, num_classes, in_channels)
