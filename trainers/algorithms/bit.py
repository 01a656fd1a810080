"""BiT (Liu et al., 2022, "BiT: Robustly Binarized Multi-distilled Transformer", NeurIPS, arXiv:2205.13016),
its elastic binarization; none of the eight of the BiBench paper."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, algorithms, clip, divide_gradient, identity, sign

LEAST = 1e-5  # alpha


def rounded_clip(u: Tensor) -> Tensor:
    """Derivative of 2 round(clip(v, 0, 1)) - 1 to v = u + 1/2: 2 where 0 <= v < 1, else 0."""
    return u.clone().ge_(-0.5).mul_(u.clone().lt_(0.5)).mul_(2)


def closed_rounded_clip(u: Tensor) -> Tensor:
    """The same as it was released: 2 at v = 1 too."""
    return u.abs().le_(0.5).mul_(2)


@algorithms.register("bit")
class BiT(BinaryLayer):
    """o = (a * sign(w)) m, m the layer's mean |w|, without gradient. With `alpha` and `beta`, learned for the
    layer, from 1 and 0, and v = (x - beta) / alpha,

        a = alpha sign(v)                     {-alpha, alpha}
        a = alpha round(clip(v, 0, 1))        {0, alpha}, where x is what a ReLU gives

    Gradients: to x 1 within [-1, 1], or within [0, 1), of v, else 0; to beta the same with a minus; to w that
    of its sign. To alpha sign(v), as the sign does not depend on the alpha in v; or the round less v within
    [0, 1), and the round elsewhere:

                 1 |      ___              1 |    |\\___
                   |     |       sign(v)     |    | \\       round - v, then 1
                 0 |     |                 0 |___ |
                -1 |_____|                   |   \\|
                         0                       0  1

    The released variant has beta for each input channel; takes the sign of w less its mean over the layer,
    and gives w the gradient without m; divides the gradient to alpha by the root of the number of a; and
    counts the ends of the intervals as within. There alpha starts at twice the mean |x| of the first batch,
    and here at 1 in both. The products of an attention are the network's, and not the layer's.
    """

    input_derivative = staticmethod(clip)
    weight_derivative = staticmethod(identity)
    from_zero: Tensor

    def __init__(self, layer: FloatLayer, variant: str = "paper") -> None:
        super().__init__(layer, variant)
        channels = self.in_channels if variant == "released" else 1
        beta = self.weight.new_zeros(channels)
        self.alpha = nn.Parameter(self.weight.new_ones(1))
        self.beta = nn.Parameter(self.per_channel(beta) if variant == "released" else beta)
        self.register_buffer("from_zero", torch.zeros((), dtype=torch.bool))
        self.is_from_zero = False

    def takes_rectified(self) -> bool:
        self.is_from_zero = True
        self.from_zero.fill_(True)
        return True

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.is_from_zero = bool(self.from_zero)

    def redistribute(self, weight: Tensor) -> Tensor:
        return weight - weight.detach().mean() if self.variant == "released" else weight

    def sign_weight(self, weight: Tensor) -> Tensor:
        signs = super().sign_weight(weight)
        return divide_gradient(signs, self.mean_magnitude()) if self.variant == "released" else signs

    def mean_magnitude(self) -> Tensor:
        return self.latent.detach().abs().mean()

    def sign_input(self, x: Tensor) -> Tensor:
        alpha = self.alpha.clamp_min(LEAST)
        if not self.is_from_zero:
            v = (x - self.beta) / alpha.detach()
            return sign(v, self.input_derivative, training=self.training)
        derivative = closed_rounded_clip if self.variant == "released" else rounded_clip
        return sign(
            (x - self.beta) / self._scaled(alpha, x) - 0.5, derivative, training=self.training, tie=-1
        )

    def _scaled(self, alpha: Tensor, signs: Tensor) -> Tensor:
        """alpha with the gradient that the variant gives it."""
        if self.variant == "paper":
            return alpha
        return divide_gradient(alpha, alpha.new_tensor(math.sqrt(signs.numel())))

    def input_values(self, signs: Tensor) -> Tensor:
        alpha = self._scaled(self.alpha.clamp_min(LEAST), signs)
        return alpha * ((signs + 1) / 2) if self.is_from_zero else alpha * signs

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * self.mean_magnitude()

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return 1, 1  # alpha m
