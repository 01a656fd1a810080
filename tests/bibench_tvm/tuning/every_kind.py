"""A small network that has a kernel of every kind that is tuned."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS, DEPTH, TOKENS = 2, 20, 24


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


class EveryKind(nn.Module):
    """(1, 3, 32, 32), (1, 24, 9, 9), (1, TOKENS, HEADS * DEPTH) -> (1, 70), (1, HEADS, TOKENS, TOKENS)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.inside = nn.Conv2d(64, 64, 3, padding=1)
        self.float_depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.binary = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.binary_depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        self.of_planes = nn.Conv2d(24, 40, 3, padding=1, bias=False)
        self.dense = nn.Linear(64, 70)
        self.projections = nn.ModuleList(nn.Linear(HEADS * DEPTH, HEADS * DEPTH) for _ in range(2))

    @staticmethod
    def _of_signs(x: Tensor, layer: nn.Conv2d) -> Tensor:
        return F.conv2d(signs(x), signs(layer.weight), padding=layer.padding, groups=layer.groups)

    def forward(self, image: Tensor, planes: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.stem(image).relu(), 2)
        x = self.float_depthwise(self.inside(x).relu())
        x = self._of_signs(self._of_signs(x, self.binary), self.binary_depthwise)
        shape = (HEADS, DEPTH)
        q, k = (
            signs(F.linear(signs(tokens), signs(p.weight)).unflatten(-1, shape)) for p in self.projections
        )
        scores = q.transpose(1, 2) @ k.transpose(1, 2).transpose(-1, -2)
        return self.dense(x[:, :, 0, 0]), scores, self._of_signs(planes, self.of_planes)


def every_kind() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, 32, 32), torch.randn(1, 24, 9, 9), torch.randn(1, TOKENS, HEADS * DEPTH)
    return EveryKind().eval(), inputs
