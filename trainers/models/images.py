"""What the networks for images share: their example input is one square image, and their stem fits it."""

import torch
from torch import Tensor, nn

from trainers.registry import unknown_name


class ImageNetwork(nn.Module):
    """`input_shape` is that of one image, (C, H, W), in float32."""

    def __init__(self, in_channels: int, extent: int) -> None:
        super().__init__()
        self.input_shape = (in_channels, extent, extent)

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return (torch.zeros(1, *self.input_shape),)


def is_cifar(stem: str) -> bool:
    """Whether the first layers are for the images of CIFAR, 32x32, and not for those of ImageNet, 224x224.

    Raises:
        ValueError: neither.
    """
    if stem not in ("imagenet", "cifar"):
        raise unknown_name("stem", stem, ["imagenet", "cifar"])
    return stem == "cifar"
