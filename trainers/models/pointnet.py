"""PointNet (Qi et al., 2017, "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation",
CVPR, arXiv:1612.00593), figure 2 and appendix C, for classes and for parts, with Hardtanh in the place of
ReLU.

Over the points there is the maximum, or EMA-max (Qin et al., 2021, "BiPointNet: Binary Neural Network for
Point Clouds", ICLR, arXiv:2010.05501, section 3.2), without which a binary PointNet does not converge: the
maximum of normal numbers is nearly always positive, so that its sign says nothing, and EMA-max moves its
median to 0. Therefore the maximum is that of the batch normalisation, with no activation between."""

from statistics import NormalDist

import torch
from torch import Tensor, nn

from trainers.models import models, register_model
from trainers.registry import unknown_name


def layer(in_channels: int, out_channels: int, active: bool = True) -> nn.Sequential:
    """A linear map of every point, batch normalisation, Hardtanh: (N, in, points) -> (N, out, points)."""
    parts = [nn.Conv1d(in_channels, out_channels, 1), nn.BatchNorm1d(out_channels)]
    return nn.Sequential(*parts, *[nn.Hardtanh()] * active)


def dense(in_channels: int, out_channels: int) -> nn.Sequential:
    """The same of what all points have together: (N, in) -> (N, out)."""
    return nn.Sequential(nn.Linear(in_channels, out_channels), nn.BatchNorm1d(out_channels), nn.Hardtanh())


class Aggregator(nn.Module):
    """What all points have together: (N, C, points) -> (N, C).

    Args:
        kind: "max", or "ema_max": less the median of the maximum of so many independent normal numbers,
            which of 1024 is 3.204.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in ("max", "ema_max"):
            raise unknown_name("aggregator", kind, ["max", "ema_max"])
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        most = x.amax(2)
        return most if self.kind == "max" else most - NormalDist().inv_cdf(0.5 ** (1 / x.shape[2]))


class TNet(nn.Module):
    """A matrix for each cloud, near the identity: (N, C, points) -> (N, C, C); appendix C of the paper."""

    def __init__(self, channels: int, width: int, aggregator: str) -> None:
        super().__init__()
        self.points = nn.Sequential(
            layer(channels, width), layer(width, 2 * width), layer(2 * width, 16 * width, active=False)
        )
        self.aggregator = Aggregator(aggregator)
        self.cloud = nn.Sequential(dense(16 * width, 8 * width), dense(8 * width, 4 * width))
        self.matrix = nn.Linear(4 * width, channels * channels)
        # Of no checkpoint, so it has its values also where the network is built without any.
        self.register_buffer("identity", torch.eye(channels, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix(self.cloud(self.aggregator(self.points(x))))
        return matrix.unflatten(1, self.identity.shape) + self.identity.to(matrix.device)


class PointNet(nn.Module):
    """(N, in_channels, points) -> (N, num_classes), or (N, parts, points) where there are parts.

    Both layers that take coordinates stay float: a T-Net comes before the second, and the signs of three
    coordinates would leave eight different points.

    Args:
        width: channels of the first layer; 16 times as many describe the cloud.
        transform: whether with the two T-Nets.
    """

    def __init__(
        self,
        width: int,
        transform: bool,
        aggregator: str,
        num_classes: int,
        parts: int,
        points: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.input_shape = (in_channels, points)
        self.input_transform = TNet(in_channels, width, aggregator) if transform else None
        self.early = nn.Sequential(layer(in_channels, width), layer(width, width))
        self.feature_transform = TNet(width, width, aggregator) if transform else None
        self.late = nn.Sequential(
            layer(width, width), layer(width, 2 * width), layer(2 * width, 16 * width, active=False)
        )
        self.aggregator = Aggregator(aggregator)
        self.for_parts = parts > 0
        if parts:
            self.local = nn.Sequential(
                layer(17 * width, 8 * width), layer(8 * width, 4 * width), layer(4 * width, 2 * width)
            )
            self.head: nn.Module = nn.Conv1d(2 * width, parts, 1)
        else:
            self.cloud = nn.Sequential(
                dense(16 * width, 8 * width), dense(8 * width, 4 * width), nn.Dropout(0.3)
            )
            self.head = nn.Linear(4 * width, num_classes)
        self.stays_float = ["early.0.0", "head"] + ["input_transform.points.0.0"] * transform

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return (torch.zeros(1, *self.input_shape),)

    def forward(self, x: Tensor) -> Tensor:
        if self.input_transform is not None:
            x = self.input_transform(x) @ x
        x = self.early(x)
        if self.feature_transform is not None:
            x = self.feature_transform(x) @ x
        cloud = self.aggregator(self.late(x))
        if self.for_parts:
            everywhere = cloud[:, :, None].expand(-1, -1, x.shape[2])
            return self.head(self.local(torch.cat([x, everywhere], 1)))
        return self.head(self.cloud(cloud))


@register_model
def pointnet(
    num_classes: int = 40,
    parts: int = 0,
    points: int = 1024,
    in_channels: int = 3,
    aggregator: str = "ema_max",
) -> nn.Module:
    """PointNet for ModelNet40: (N, 3, 1024) -> (N, 40); with 50 `parts` for ShapeNet: (N, 50, 1024)."""
    return PointNet(64, True, aggregator, num_classes, parts, points, in_channels)


@models.register("pointnet@small")
def pointnet_small(
    num_classes: int = 10,
    parts: int = 0,
    points: int = 128,
    in_channels: int = 3,
    aggregator: str = "ema_max",
) -> nn.Module:
    """(N, 3, 128) -> (N, 10) or (N, parts, 128): a quarter of the width."""
    return PointNet(16, True, aggregator, num_classes, parts, points, in_channels)


@register_model
def pointnet_vanilla(
    num_classes: int = 40,
    parts: int = 0,
    points: int = 1024,
    in_channels: int = 3,
    aggregator: str = "ema_max",
) -> nn.Module:
    """PointNet without its T-Nets ("vanilla" in table 6 of the paper): (N, 3, 1024) -> (N, 40)."""
    return PointNet(64, False, aggregator, num_classes, parts, points, in_channels)


@models.register("pointnet_vanilla@small")
def pointnet_vanilla_small(
    num_classes: int = 10,
    parts: int = 0,
    points: int = 128,
    in_channels: int = 3,
    aggregator: str = "ema_max",
) -> nn.Module:
    """(N, 3, 128) -> (N, 10) or (N, parts, 128): a quarter of the width."""
    return PointNet(16, False, aggregator, num_classes, parts, points, in_channels)
