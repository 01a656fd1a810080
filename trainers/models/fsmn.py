"""Feedforward sequential memory networks for keywords in speech.

FSMN (Zhang et al., 2015, arXiv:1512.08301) has, behind a layer, a memory block: a filter over time of its own
for each channel. This is its compact form (Zhang et al., 2016, "Compact Feedforward Sequential Memory
Networks for Large Vocabulary Continuous Speech Recognition", Interspeech), whose memory is on a narrow
projection. Deep-FSMN (Zhang et al., 2018, "Deep-FSMN for Large Vocabulary Continuous Speech Recognition",
ICASSP, arXiv:1803.05030) adds shortcuts from memory block to memory block:

    h = f(W m' + b)      p = V h + v      m = [m' +] p + sum_{i=-2..2} a_i * p(t + i)

The papers' networks are for another task. Depth (8 layers), widths (256 hidden, memory of 128), order of the
memory (2 frames back, 2 ahead, all next to each other) and the two 5x5 convolutions with stride 2 before them
(16 and 32 channels) are those of the D-FSMN in BiBench's released configuration for Speech Commands
(`_base_/models/dfsmn.py`: 32 x 32 log-mel energies, 12 classes), which is that of BiFSMN (Qin et al., 2022,
IJCAI, arXiv:2202.06483). FSMN was not released; it is the same without the shortcuts. Batch normalisation
follows every layer, and Hardtanh takes the place of ReLU."""

import torch
from torch import Tensor, nn

from trainers.models import models, register_model

BACK = AHEAD = 2  # frames that a memory block sees besides its own


class MemoryLayer(nn.Module):
    """Hidden layer, projection, memory: (N, memory, T) -> (N, memory, T)."""

    def __init__(self, hidden: int, memory: int, deep: bool) -> None:
        super().__init__()
        self.deep = deep
        self.hidden = nn.Sequential(nn.Conv1d(memory, hidden, 1), nn.BatchNorm1d(hidden), nn.Hardtanh())
        self.projection = nn.Sequential(nn.Conv1d(hidden, memory, 1), nn.BatchNorm1d(memory))
        self.memory = nn.Sequential(
            nn.Conv1d(memory, memory, BACK + 1 + AHEAD, padding=BACK, groups=memory), nn.BatchNorm1d(memory)
        )

    def forward(self, x: Tensor) -> Tensor:
        p = self.projection(self.hidden(x))
        m = p + self.memory(p)
        return x + m if self.deep else m


class FSMN(nn.Module):
    """(N, 1, features, frames) -> (N, num_classes), for `features` mel energies of each frame.

    Two convolutions quarter the time and the features, then all features of a time are one vector.

    Args:
        deep: whether with Deep-FSMN's shortcuts.
        front: channels of the first convolution; the second has twice as many.
    """

    def __init__(
        self,
        deep: bool,
        layers: int,
        hidden: int,
        memory: int,
        front: int,
        num_classes: int,
        features: int,
        frames: int,
    ) -> None:
        super().__init__()
        self.input_shape = (1, features, frames)
        height, width = (-(-extent // 4) for extent in (features, frames))
        self.front = nn.Sequential(
            nn.Conv2d(1, front, 5, 2, 2),
            nn.BatchNorm2d(front),
            nn.Hardtanh(),
            nn.Conv2d(front, 2 * front, 5, 2, 2),
            nn.BatchNorm2d(2 * front),
            nn.Hardtanh(),
        )
        self.narrow = nn.Sequential(nn.Conv1d(2 * front * height, memory, 1), nn.BatchNorm1d(memory))
        self.layers = nn.Sequential(*(MemoryLayer(hidden, memory, deep) for _ in range(layers)))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(memory * width, num_classes))

    @property
    def example_inputs(self) -> tuple[Tensor]:
        return (torch.zeros(1, *self.input_shape),)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.layers(self.narrow(self.front(x).flatten(1, 2))))


@register_model
def fsmn(num_classes: int = 12, features: int = 32, frames: int = 32) -> nn.Module:
    """FSMN for Speech Commands: (N, 1, 32, 32) -> (N, 12)."""
    return FSMN(False, 8, 256, 128, 16, num_classes, features, frames)


@models.register("fsmn@small")
def fsmn_small(num_classes: int = 12, features: int = 32, frames: int = 32) -> nn.Module:
    """(N, 1, 32, 32) -> (N, 12): two layers, half the width."""
    return FSMN(False, 2, 128, 64, 8, num_classes, features, frames)


@register_model
def dfsmn(num_classes: int = 12, features: int = 32, frames: int = 32) -> nn.Module:
    """Deep-FSMN for Speech Commands: (N, 1, 32, 32) -> (N, 12)."""
    return FSMN(True, 8, 256, 128, 16, num_classes, features, frames)


@models.register("dfsmn@small")
def dfsmn_small(num_classes: int = 12, features: int = 32, frames: int = 32) -> nn.Module:
    """(N, 1, 32, 32) -> (N, 12): two layers, half the width."""
    return FSMN(True, 2, 128, 64, 8, num_classes, features, frames)
