"""XNOR-Net++ (Bulat and Tzimiropoulos, 2019, "XNOR-Net++: Improved Binary Neural Networks", BMVC,
arXiv:1909.13863); equations 17-18 and Table 6 of the BiBench paper."""

from collections.abc import Sequence

from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, algorithms, clip

LONGEST = 2000  # the extent of an output is not known in advance, so the factors are cut from longer ones


@algorithms.register("xnorpp")
class XnorNetPlusPlus(BinaryLayer):
    """o = (sign(a) * sign(w)) . (alpha x beta x gamma), eqs 17-18, all learned and starting at 1.

    alpha is for the output channel, beta for the row and gamma for the column of the output; Conv1d has
    alpha and beta, a linear layer alpha alone. `extents` holds beta and gamma.

    Gradient of both signs: 1 where |x| < 1, else 0 (eq. 12); in the released variant 1 at |x| = 1 too.

                 1 |  ______
                   | |      |          d sign / d x over x
                 0 |_|      |_
                    -1  0   1

    Both variants are the same but for that boundary.
    """

    input_derivative = staticmethod(clip)
    weight_derivative = staticmethod(clip)

    def __init__(self, layer: FloatLayer, variant: str = "paper") -> None:
        super().__init__(layer, variant)
        self.alpha = nn.Parameter(self.per_channel(self.weight.new_ones(self.out_channels)))
        self.extents = nn.ParameterList(self.weight.new_ones(LONGEST) for _ in range(self.spatial))

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        y = y * self.alpha
        for dim, factors in zip(self.sample_dims[1:], self.extents, strict=True):
            size = y.shape[dim]
            if size > LONGEST:
                raise ValueError(
                    f"XNOR-Net++ scales outputs of at most {LONGEST} positions in a row, not {size}."
                )
            y = y * factors[:size].reshape(-1, *(1,) * (-1 - dim))
        return y

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return self.out_channels + sum(extents), 1 + (self.spatial > 0)  # beta gamma is one number a position
