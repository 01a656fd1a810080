"""AdaBin (Tu et al., 2022, "AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets", ECCV,
arXiv:2208.08084); none of the eight of the BiBench paper."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, algorithms, poly, sign

SHARPNESS = 0.1  # of the tanh that stands in for the sign of a weight


def nearly_linear(x: Tensor) -> Tensor:
    """Derivative of tanh(t x) / t, t = 0.1: 1 at 0, and still above 0.99 at 1."""
    return 1 - (SHARPNESS * x).tanh().square()


@algorithms.register("adabin")
class AdaBin(BinaryLayer):
    """o = sum of a w, of two numbers each: a = alpha_a sign(v) + beta_a and w = alpha_w sign(u) + beta_w.

    v = (a - beta_a) / alpha_a with `alpha` and `beta`, learned for the layer, from 1 and 0. u = (w - beta_w)
    / alpha_w with the mean of an output channel's weights and their standard deviation, ||w - beta_w|| /
    sqrt(n), both with gradient.

    Gradients of the signs: 2 - 2|v| within [-1, 1] to v; 1 - tanh(u / 10)^2 to u. To alpha_a it is sign(v)
    less v times that, and to beta_a 1 less that.

                 2 |    /\\
                   |   /  \\           d sign(v) / d v over v
                 0 |__/    \\__
                    -1  0  1

    The released variant has a = alpha_a (sign(v) + beta_a); its derivatives are used in both. The activation
    between the paper's layers, Maxout, is the network's and not the layer's.
    """

    input_derivative = staticmethod(poly)
    weight_derivative = staticmethod(nearly_linear)

    def __init__(self, layer: FloatLayer, variant: str = "paper") -> None:
        super().__init__(layer, variant)
        self.alpha = nn.Parameter(self.weight.new_ones(1))
        self.beta = nn.Parameter(self.weight.new_zeros(1))

    def centre_and_distance(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """beta_w and alpha_w of the float weights, broadcastable to them."""
        over = tuple(range(1, weight.dim()))
        beta = weight.mean(over, keepdim=True)
        # A channel whose weights are all the same has a distance of almost 0, which divides.
        least = torch.finfo(weight.dtype).tiny
        return beta, (weight - beta).square().mean(over, keepdim=True).clamp_min(least).sqrt()

    def redistribute(self, weight: Tensor) -> Tensor:
        beta, alpha = self.centre_and_distance(weight)
        return (weight - beta) / alpha

    def sign_input(self, x: Tensor) -> Tensor:
        return sign((x - self.beta) / self.alpha, self.input_derivative, training=self.training)

    def input_values(self, signs: Tensor) -> Tensor:
        if self.variant == "released":
            return self.alpha * (signs + self.beta)
        return self.alpha * signs + self.beta

    def weight_values(self, signs: Tensor) -> Tensor:
        beta, alpha = self.centre_and_distance(self.latent)
        return alpha * signs + beta

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return 2 * self.out_channels, 2  # of the sums of a w's signs, and of the one sum of a's
