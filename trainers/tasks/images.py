"""What tasks of small images share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image (N, C, H, W) by up to `most` pixels either way, at random, with 0 moving in."""
    count, _, height, width = images.shape
    rows = torch.arange(height) + torch.randint(2 * most + 1, (count, 1), generator=generator)
    columns = torch.arange(width) + torch.randint(2 * most + 1, (count, 1), generator=generator)
    last = F.pad(images, [most] * 4).movedim(1, -1)
    return last[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images (N, C, H, W), at random, the other way round."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, C, H, W) -> float32, less the mean of pixels in [0, 1] and over their standard deviation."""
    shape = (-1, 1, 1)
    return (images.float() / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
