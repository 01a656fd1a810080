"""Bi-Real Net (Liu et al., 2018, "Bi-Real Net: Enhancing the Performance of 1-bit CNNs with Improved
Representational Capability and Advanced Training Algorithm", ECCV, arXiv:1808.00278); equation 16 and Table
6 of the BiBench paper."""

from collections.abc import Sequence

from torch import Tensor

from trainers.operator import BinaryLayer, algorithms, clip, divide_gradient, poly


@algorithms.register("bireal")
class BiReal(BinaryLayer):
    """o = (sign(a) * sign(w)) . alpha, as eq. 15; alpha is the mean |w| of the output channel, without
    gradient.

    Gradients: 2 - 2|a| within [-1, 1] to a (eq. 16); 1 where |w| < 1, else 0 to w (eq. 12).

                 2 |    /\\
                   |   /  \\           d sign / d a over a
                 0 |__/    \\__
                    -1  0  1

    The shortcut of the Bi-Real network belongs to an architecture and not to the operator.
    In the released variant the weights get their gradient without alpha, and 1 at |w| = 1 too. The released
    linear layer drops its bias; here it keeps it.
    """

    input_derivative = staticmethod(poly)
    weight_derivative = staticmethod(clip)

    def sign_weight(self, weight: Tensor) -> Tensor:
        signs = super().sign_weight(weight)
        return (
            divide_gradient(signs, self.channel_weight_alpha(weight)) if self.variant == "released" else signs
        )

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * self.channel_alpha(weight)

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return self.out_channels, 1
