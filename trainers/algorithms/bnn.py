"""BNN (Courbariaux et al., 2016, "Binarized Neural Networks: Training Deep Neural Networks with Weights and
Activations Constrained to +1 or -1", arXiv:1602.02830); equations 12-13 and Table 6 of the BiBench paper."""

from trainers.operator import BinaryLayer, algorithms, clip


@algorithms.register("bnn")
class BNN(BinaryLayer):
    """o = sign(a) * sign(w), eq. 13; no scaling factor; sign(0) = +1.

    Gradient of both signs: 1 where |x| < 1, else 0 (eq. 12); in the released variant 1 at |x| = 1 too.

                 1 |  ______
                   | |      |          d sign / d x over x
                 0 |_|      |_
                    -1  0   1

    Both variants are the same but for that boundary.
    """

    input_derivative = staticmethod(clip)
    weight_derivative = staticmethod(clip)
