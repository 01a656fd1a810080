"""ReCU (Xu et al., 2021, "ReCU: Reviving the Dead Weights in Binary Neural Networks", ICCV,
arXiv:2103.12369); equations 25-29 and Table 6 of the BiBench paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, Hyperparameters, algorithms, identity, poly


@dataclass(frozen=True)
class ReCUHyperparameters(Hyperparameters):
    """tau at the start and at the end of the training."""

    tau_start: float = 0.85
    tau_end: float = 0.99

    def __post_init__(self) -> None:
        for name, tau in (("tau_start", self.tau_start), ("tau_end", self.tau_end)):
            if not 0.5 < tau < 1:  # at 0.5 both quantiles are the median, at 1 released ones are infinite
                raise ValueError(f"ReCU's {name} is between 0.5 and 1, but {tau} was given.")


@algorithms.register("recu")
class ReCU(BinaryLayer):
    """o = (sign(a) * sign(recu(v))) . alpha, where v are the weights, centred and standardised by output
    channel.

    recu(v) = max(min(v, Q(tau)), Q(1 - tau)), eq. 25, with the quantiles Q over the layer's v. alpha is the
    mean |recu(v)| of the output channel, without gradient: it scales what the sign is taken of. tau(p) = A
    e^p + B grows from 0.85 to 0.99 with the progress p (`set_progress`); these two are hyper-parameters.

    Gradients: 2 - 2|a| within [-1, 1] to a (eq. 29); to v 1 between the quantiles, else 0 - the sign passes
    the gradient and the clamp cuts it - and from v to w through the standardisation.

                 2 |    /\\                               1 |    _________
                   |   /  \\        over a                  |   |         |       over v
                 0 |__/    \\__                           0 |___|         |___
                    -1  0  1                             Q(1-tau)    Q(tau)

    The released variant has v = (w - mean) / (std / (2 sqrt 2)); the quantiles of a Laplace distribution,
    Q = -mean|v| ln(2 - 2 tau) and -Q; a learned alpha that starts in U(0, 1); and activations that in
    training are divided by their standard deviation over the sample (n - 1). Its convolutions scale the bias
    too: (conv + b) . alpha.

    In evaluation the quantiles are the buffer `limits`, (Q(1 - tau), Q(tau)), so that what is exported does
    not sort. It is renewed whenever the layer changes its mode, its weights are loaded or tau moves.
    """

    input_derivative = staticmethod(poly)
    weight_derivative = staticmethod(identity)
    hyperparameters_type = ReCUHyperparameters
    hyperparameters: ReCUHyperparameters
    tau: Tensor
    limits: Tensor

    def __init__(
        self, layer: FloatLayer, variant: str = "paper", hyperparameters: ReCUHyperparameters | None = None
    ) -> None:
        super().__init__(layer, variant, hyperparameters)
        self.alpha = None
        if variant == "released":
            self.alpha = nn.Parameter(self.per_channel(torch.rand(self.out_channels).to(self.weight)))
        self.register_buffer("tau", self.weight.new_tensor(self.hyperparameters.tau_start))
        self.register_buffer("limits", self.weight.new_zeros(2))
        self.register_load_state_dict_post_hook(_renew_limits)
        self.renew_limits()

    def standardise(self, weight: Tensor) -> Tensor:
        """Zero mean for each output channel, and standard deviation 1 (paper) or 2 sqrt 2 (released)."""
        rows = weight.flatten(1)
        centred = rows - rows.mean(1, keepdim=True)
        variance = centred.square().sum(1, keepdim=True) / max(1, rows.shape[1] - 1)
        spread = 1.0 if self.variant == "paper" else 2 * math.sqrt(2)
        # The small number keeps channels of equal weights, which have no deviation, free of NaN.
        return (centred / (variance + 1e-5).sqrt() * spread).reshape(weight.shape)

    @torch.no_grad()
    def quantiles(self, standardised: Tensor) -> Tensor:
        """Q(1 - tau) and Q(tau) of the standardised weights: shape (2,)."""
        if self.variant == "released":
            quantile = -standardised.abs().mean() * (2 - 2 * self.tau).log()
            return torch.stack([-quantile, quantile])
        # What torch.quantile computes, which takes no more than 16 million numbers.
        ordered = standardised.flatten().sort().values
        position = torch.stack([1 - self.tau, self.tau]).double() * (len(ordered) - 1)
        below, above = ordered[position.floor().long()], ordered[position.ceil().long()]
        return torch.lerp(below, above, position.frac().to(ordered.dtype))

    @torch.no_grad()
    def renew_limits(self) -> None:
        """Bring the buffer `limits` up to the present weights and tau."""
        self.limits = self.quantiles(self.standardise(self.latent))

    def train(self, mode: bool = True) -> "ReCU":
        super().train(mode)
        if "limits" in self._buffers:  # not yet while the constructor runs
            self.renew_limits()
        return self

    def set_progress(self, progress: float, epochs: int | None = None) -> None:
        start, end = self.hyperparameters.tau_start, self.hyperparameters.tau_end
        growth = (end - start) / (math.e - 1)
        self.tau.fill_(growth * math.exp(progress) + start - growth)
        if not self.training:  # in training each forward takes its own
            self.renew_limits()

    def redistribute(self, weight: Tensor) -> Tensor:
        standardised = self.standardise(weight)
        limits = self.quantiles(standardised) if self.training else self.limits
        return standardised.clamp(limits[0], limits[1])

    def sign_input(self, x: Tensor) -> Tensor:
        if self.training and self.variant == "released":
            size = math.prod(x.shape[self.channel_dim :])
            x = x / (x.var(self.sample_dims, correction=min(1, size - 1), keepdim=True) + 1e-5).sqrt()
        return super().sign_input(x)

    def offset(self, bias: Tensor) -> Tensor:
        offset = super().offset(bias)
        return offset if self.alpha is None or self.spatial == 0 else offset * self.alpha

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * (self.channel_alpha(weight) if self.alpha is None else self.alpha)

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return self.out_channels, 1


def _renew_limits(layer: ReCU, incompatible_keys: object) -> None:
    """The hook after loading weights; not a lambda, so that the layer can be pickled."""
    layer.renew_limits()
