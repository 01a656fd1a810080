"""ReActNet (Liu et al., 2020, "ReActNet: Towards Precise Binary Neural Network with Generalized Activation
Functions", ECCV, arXiv:2003.03488); equations 19-24 and Table 6 of the BiBench paper."""

from collections.abc import Sequence

from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, algorithms, clip, divide_gradient, poly, sign


@algorithms.register("reactnet")
class ReActNet(BinaryLayer):
    """o = (rsign(a) * sign(w)) . alpha, eq. 20, with a learned threshold t for each input channel.

    rsign(a) = +1 where a > t, else -1 (eq. 19); t starts at 0. alpha is the mean |w| of the output channel,
    without gradient.
    Gradients: 2 - 2|a - t| within [-1, 1] to a, and minus that to t (eqs 21-24); 1 where |w| < 1, else 0
    to w (eq. 12).

                 2 |    /\\
                   |   /  \\           d rsign / d a over a
                 0 |__/    \\__
                   t-1 t t+1

    The released variant is sign(a + theta), +1 at its threshold t = -theta; its weights get their gradient
    without alpha, and 1 at |w| = 1 too. The released linear layer adds theta and then takes the sign without
    it, and drops its bias; neither is repeated.
    """

    input_derivative = staticmethod(poly)
    weight_derivative = staticmethod(clip)

    def __init__(self, layer: FloatLayer, variant: str = "paper") -> None:
        super().__init__(layer, variant)
        self.threshold = nn.Parameter(self.per_channel(self.weight.new_zeros(self.in_channels)))

    def sign_input(self, x: Tensor) -> Tensor:
        tie = -1 if self.variant == "paper" else 1
        return sign(x, self.input_derivative, training=self.training, threshold=self.threshold, tie=tie)

    def sign_weight(self, weight: Tensor) -> Tensor:
        signs = super().sign_weight(weight)
        return (
            divide_gradient(signs, self.channel_weight_alpha(weight)) if self.variant == "released" else signs
        )

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * self.channel_alpha(weight)

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return self.out_channels, 1
