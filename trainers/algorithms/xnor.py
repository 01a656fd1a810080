"""XNOR-Net (Rastegari et al., 2016, "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
Networks", ECCV, arXiv:1603.05279); equation 14 and Table 6 of the BiBench paper."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.operator import BinaryLayer, algorithms, clip, divide_gradient


@algorithms.register("xnor")
class XnorNet(BinaryLayer):
    """o = (sign(a) * sign(w)) . K alpha, eq. 14, with statistics K and alpha that have no gradient.

    alpha is the mean |w| of the output channel. K is the mean |a| over the input channels, averaged over the
    kernel's window at each position of the output (padding counts as 0): (N, groups, H_out, W_out), each
    group's for its own output channels. In a linear layer K is the mean |a| of the row, and in a transposed
    convolution the mean over those taps of an output that meet a pixel, be it of the padding.

    Gradient of both signs: 1 where |x| < 1, else 0 (eq. 12); in the released variant 1 at |x| = 1 too.

                 1 |  ______
                   | |      |          d sign / d x over x
                 0 |_|      |_
                    -1  0   1

    The released variant has one K for each sample, its mean |a|, and centres each row of a linear layer's
    weights by its mean before sign and alpha. Its convolutions pass the gradient to the weights without
    alpha, and to the activations without K.
    """

    input_derivative = staticmethod(clip)
    weight_derivative = staticmethod(clip)

    def redistribute(self, weight: Tensor) -> Tensor:
        if self.variant == "released" and self.spatial == 0:
            return weight - weight.mean(1, keepdim=True)
        return weight

    def sign_input(self, x: Tensor) -> Tensor:
        signs = super().sign_input(x)
        released = self.variant == "released" and self.spatial > 0
        return divide_gradient(signs, self.activation_scale(x.detach())) if released else signs

    def sign_weight(self, weight: Tensor) -> Tensor:
        signs = super().sign_weight(weight)
        released = self.variant == "released" and self.spatial > 0
        return divide_gradient(signs, self.channel_weight_alpha(weight)) if released else signs

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return y * self.activation_scale(x.detach()) * self.channel_alpha(weight)

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int]:
        return self.out_channels, 2  # alpha and K, which is no number of its own

    def activation_scale(self, x: Tensor) -> Tensor:
        """K, shaped so that it broadcasts over the layer's output."""
        if self.variant == "released" or self.spatial == 0:
            return x.abs().mean(self.sample_dims, keepdim=True)
        if self.groups == 1:
            return self.window_mean(x.abs().mean(self.channel_dim, keepdim=True))
        means = x.abs().unflatten(self.channel_dim, (self.groups, -1)).mean(self.channel_dim)
        return self.window_mean(means).repeat_interleave(self.out_channels // self.groups, self.channel_dim)

    def window_mean(self, x: Tensor) -> Tensor:
        """The mean over the convolution's window, channel by channel: (..., H, W) -> (..., H_out, W_out)."""
        if self.is_transposed:
            return self.operate_mean(x)
        x = self.pad(x)
        if all(d == 1 for d in self.dilation):
            # Pooling takes at most half its window as padding, a convolution any.
            if any(p > k // 2 for p, k in zip(self.padding, self.kernel_size, strict=True)):
                x = F.pad(x, [p for p in reversed(self.padding) for _ in range(2)])
                padding: tuple[int, ...] = (0,) * self.spatial
            else:
                padding = self.padding
            if self.spatial == 1:
                return F.avg_pool1d(x, self.kernel_size, self.stride, padding)
            return F.avg_pool2d(x, self.kernel_size, self.stride, padding)
        box = x.new_full((self.groups, 1, *self.kernel_size), 1 / math.prod(self.kernel_size))
        convolve = F.conv1d if self.spatial == 1 else F.conv2d
        return convolve(x, box, None, self.stride, self.padding, self.dilation, self.groups)

    def operate_mean(self, x: Tensor) -> Tensor:
        """The same of a transposed convolution: an output's sum by how many of its taps there are."""
        total = self.operate(x, x.new_ones(self.groups, 1, *self.kernel_size))
        for dim in range(self.spatial):
            place = torch.arange(total.shape[dim - self.spatial], device=x.device)[:, None]
            tap = torch.arange(self.kernel_size[dim], device=x.device) * self.dilation[dim]
            meets = (place + self.padding[dim] - tap) % self.stride[dim] == 0
            count = meets.sum(1).clamp_min(1).to(x.dtype)
            total = total / count.reshape(-1, *(1,) * (self.spatial - 1 - dim))
        return total
