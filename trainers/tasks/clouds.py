"""What tasks of point clouds share. A cloud is (3, points), its second coordinate points up."""

import math

import numpy as np
import torch
from torch import Tensor

JITTER, FARTHEST = 0.01, 0.05  # standard deviation of a coordinate and the most it moves, in radii


def to_unit_sphere(points: np.ndarray) -> np.ndarray:
    """Points (P, 3) moved and scaled: their mean is 0, the farthest is at 1."""
    centred = points - points.mean(0)
    return centred / max(float(np.sqrt((centred**2).sum(1).max())), 1e-12)


def turn(clouds: Tensor, generator: torch.Generator) -> Tensor:
    """Clouds (N, 3, P), each turned by an angle of its own about the axis that points up."""
    angle = torch.rand(len(clouds), generator=generator) * (2 * math.pi)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    matrix = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).unflatten(1, (3, 3))
    return matrix @ clouds


def jitter(clouds: Tensor, generator: torch.Generator) -> Tensor:
    """Clouds (N, 3, P), every point of which moves a little."""
    noise = torch.randn(clouds.shape, generator=generator) * JITTER
    return clouds + noise.clamp(-FARTHEST, FARTHEST)
