"""What the networks for images share: their example input is one square image."""

import torch
from torch import Tensor, nn


class ImageNetwork(nn.Module):
    """`input_shape` is that of one image, (C, H, W), in float32."""

    def __init__(self, in_channels: int, extent: int) -> None:
        super().__init__()
        self.input_shape = (in_channels, extent, extent)

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return (torch.zeros(1, *self.input_shape),)
