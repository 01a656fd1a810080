"""FDA (Xu et al., 2021, "Learning Frequency Domain Approximation for Binary Neural Networks", NeurIPS,
arXiv:2103.00841); equations 30-32 and Table 6 of the BiBench paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.operator import BinaryLayer, FloatLayer, Hyperparameters, algorithms, sign


@dataclass(frozen=True)
class FDAHyperparameters(Hyperparameters):
    """omega, n at the start and at the end of the training, and kappa at its start; at its end kappa is 0."""

    omega: float = 0.1
    terms_start: int = 9
    terms_end: int = 18
    noise: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.omega < 100:
            raise ValueError(f"FDA's omega is between 0 and 100, but {self.omega} was given.")
        for name, terms in (("terms_start", self.terms_start), ("terms_end", self.terms_end)):
            if not 0 <= terms <= 10_000:
                raise ValueError(f"FDA's {name} is from 0 to 10000, but {terms} was given.")
        if not 0 <= self.noise < 100:
            raise ValueError(f"FDA's noise is from 0 on and below 100, but {self.noise} was given.")


class Noise(nn.Module):
    """The noise adaptation module: (..., size) -> (..., size), w2 relu(w1 t) + 0.1 sin t; no biases."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, max(1, size // 64), bias=False)
        self.fc2 = nn.Linear(max(1, size // 64), size, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(t))) + 0.1 * torch.sin(t)


@algorithms.register("fda")
class FDA(BinaryLayer):
    """o = (rsign(a) * sign(w)) . alpha, eq. 30, with a learned threshold t for each input channel.

    rsign(a) = +1 where a > t, else -1; t starts at 0. alpha is the mean |w| of the output channel, without
    gradient.

    Gradient of both signs: the Fourier series of the sign, (4 omega / pi) sum_{i=0..n} cos((2i+1) omega x),
    plus that of kappa times the noise module of the operand (eqs 31-32), whose own weights learn from it.
    With the progress p (`set_progress`) n = 9 + int(9 p) and kappa = 0.05 (1 + cos(pi p)); omega = 0.1.
    These four numbers are hyper-parameters.

               1.3 |    _
                   |  .' '.            (4 omega / pi) sum cos over x, n = 9
                 0 |_'_____'______
                   -1.6 0  1.6

    The paper's operands stay +1 and -1 in training, where the noise has a gradient and no value. The released
    variant has no threshold, cuts the series outside [-1, 1], adds the noise to both operands' values, and
    has kappa = 0.05 (1 + cos(pi (e + 1) / E)) in epoch e of E, where `set_progress` is told E. In evaluation
    there is no noise in either. The module sees an activation's channels at one position, or all weights of
    one output channel.

    n and kappa are in the buffer `schedule` too, so that a compiled training is one graph throughout.
    """

    hyperparameters_type = FDAHyperparameters
    hyperparameters: FDAHyperparameters
    schedule: Tensor

    def __init__(
        self, layer: FloatLayer, variant: str = "paper", hyperparameters: FDAHyperparameters | None = None
    ) -> None:
        super().__init__(layer, variant, hyperparameters)
        self.threshold = None
        if variant == "paper":
            self.threshold = nn.Parameter(self.per_channel(self.weight.new_zeros(self.in_channels)))
        self.input_noise = Noise(self.in_channels).to(self.weight)
        self.weight_noise = Noise(self.latent[0].numel()).to(self.weight)
        self.register_buffer("schedule", self.weight.new_zeros(2), persistent=False)
        self.register_load_state_dict_post_hook(_renew_schedule)
        self.set_progress(0)

    def set_progress(self, progress: float, epochs: int | None = None) -> None:
        start, end = self.hyperparameters.terms_start, self.hyperparameters.terms_end
        self.terms = start + int((end - start) * progress)
        if self.variant == "released" and epochs is not None:
            progress = min(int(progress * epochs) + 1, epochs) / epochs
        self.kappa = self.hyperparameters.noise / 2 * (1 + math.cos(math.pi * progress))
        self.renew_schedule()

    @torch.no_grad()
    def renew_schedule(self) -> None:
        """Bring the buffer `schedule` up to n + 1 and kappa."""
        values = self.latent.new_tensor([self.terms + 1, self.kappa])
        if self.schedule.is_meta:  # weights were assigned to a network that had none
            self.schedule = values
        else:
            self.schedule.copy_(values)

    def fourier(self, x: Tensor) -> Tensor:
        """Derivative of the sign's Fourier series up to i = n, by its closed form.

        sum cos((2i+1) t) = sin(2 (n+1) t) / (2 sin t), and n + 1 at 0.
        """
        omega = self.hyperparameters.omega
        t, count = omega * x, self.schedule[0]
        sine = torch.sin(t)
        total = torch.where(sine == 0, count, torch.sin(2 * count * t) / (2 * sine)) * (4 * omega / math.pi)
        return total if self.variant == "paper" else total * (x.abs() <= 1)

    def noisy(self, signs: Tensor, noise: Tensor) -> Tensor:
        """The signs with kappa times the noise, or with its gradient alone."""
        noise = self.schedule[1] * noise
        return signs + (noise if self.variant == "released" else noise - noise.detach())

    def sign_input(self, x: Tensor) -> Tensor:
        tie = 1 if self.threshold is None else -1
        signs = sign(x, self.fourier, training=self.training, threshold=self.threshold, tie=tie)
        if not self.training:
            return signs
        operand = x if self.threshold is None else x - self.threshold
        noise = self.input_noise(operand.movedim(self.channel_dim, -1))
        return self.noisy(signs, noise.movedim(-1, self.channel_dim))

    def sign_weight(self, weight: Tensor) -> Tensor:
        signs = sign(weight, self.fourier, training=self.training)
        if not self.training:
            return signs
        return self.noisy(signs, self.weight_noise(weight.flatten(1)).reshape(weight.shape))

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * self.channel_alpha(weight)

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return self.out_channels, 1


def _renew_schedule(layer: FDA, incompatible_keys: object) -> None:
    """The hook after loading weights; not a lambda, so that the layer can be pickled."""
    layer.renew_schedule()
