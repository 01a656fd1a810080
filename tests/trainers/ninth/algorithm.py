"""A wide straight-through estimator: not of any paper, but what one file of a ninth algorithm looks like."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, Hyperparameters, algorithms, sign


@dataclass(frozen=True)
class WideHyperparameters(Hyperparameters):
    """Up to where the gradient of an activation's sign is not 0."""

    width: float = 1.25

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"The width is above 0, but {self.width} was given.")


@algorithms.register("ninth")
class Wide(BinaryLayer):
    """o = (sign(a) * sign(w)) . beta, beta learned by output channel; the gradient is 1 within the width."""

    hyperparameters_type = WideHyperparameters
    hyperparameters: WideHyperparameters

    def __init__(
        self, layer: FloatLayer, variant: str = "paper", hyperparameters: WideHyperparameters | None = None
    ) -> None:
        super().__init__(layer, variant, hyperparameters)
        self.beta = nn.Parameter(self.per_channel(torch.full((self.out_channels,), 0.5).to(self.weight)))

    def within(self, x: Tensor) -> Tensor:
        return (x.abs() < self.hyperparameters.width).to(x.dtype)

    def sign_input(self, x: Tensor) -> Tensor:
        return sign(x, self.within, training=self.training)

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * self.beta
