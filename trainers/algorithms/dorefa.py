"""DoReFa-Net (Zhou et al., 2016, "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low
Bitwidth Gradients", arXiv:1606.06160); equation 15 and Table 6 of the BiBench paper."""

from collections.abc import Sequence

from torch import Tensor

from trainers.operator import BinaryLayer, algorithms, clip, divide_gradient


@algorithms.register("dorefa")
class DoReFa(BinaryLayer):
    """o = (sign(a) * sign(w)) . alpha, eq. 15; alpha is one mean |w| for the layer, without gradient.

    Gradient of both signs: 1 where |x| < 1, else 0 (eq. 12); in the released variant 1 at |x| = 1 too.

                 1 |  ______
                   | |      |          d sign / d x over x
                 0 |_|      |_
                    -1  0   1

    The released variant has an alpha for each output channel, and a convolution's weights get their gradient
    without it; those of a linear layer with it.
    """

    input_derivative = staticmethod(clip)
    weight_derivative = staticmethod(clip)

    def sign_weight(self, weight: Tensor) -> Tensor:
        signs = super().sign_weight(weight)
        released = self.variant == "released" and self.spatial > 0
        return divide_gradient(signs, self.channel_weight_alpha(weight)) if released else signs

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        if self.variant == "paper":
            return y * weight.detach().abs().mean()
        return y * self.channel_alpha(weight)

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return (1 if self.variant == "paper" else self.out_channels), 1
