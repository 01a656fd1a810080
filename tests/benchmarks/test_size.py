"""What a library weighs beside packed bits and floats."""

import torch
from torch import nn

import trainers
from benchmarks.size import BITS, CODE, FLOATS, TABLES, TRANSFORMED, weigh
from bibench_tvm.importer import import_model


class Block(nn.Module):
    """Two padded layers, as in the last stage of a ResNet-18, whose sums become floats."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(512, 512, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_constants_are_packed_bits_and_little_else() -> None:
    torch.manual_seed(0)
    model = trainers.binarize(Block(), "bnn", keep=[]).eval()
    found = weigh(import_model(model, example_inputs=torch.zeros(1, 512, 7, 7)), "arm_cpu")
    kinds = found["bytes"]
    weights = 2 * 512 * 512 * 9 // 8
    assert kinds[BITS] == weights and kinds[FLOATS] == kinds[TRANSFORMED] == 0
    assert kinds[TABLES] == 2 * 9 * 512 + 2 * 7  # a byte each, and one list of the classes of rows
    assert found["data"] < 1.02
    assert all(size >= 0 for size in kinds.values()) and 0 < kinds[CODE] < 30_000
    assert found["whole"] < 1.08
