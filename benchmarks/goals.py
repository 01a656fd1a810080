"""What this project promises of its speed, as data: a figure is met from `must` on, and `aim` is wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """lower: whether smaller figures are better."""

    must: float
    aim: float
    lower: bool = False

    def met(self, value: float) -> str:
        """What this value reaches: "aim", "must" or, if neither, "missed"."""
        reached = [value <= bound if self.lower else value >= bound for bound in (self.must, self.aim)]
        return "aim" if reached[1] else "must" if reached[0] else "missed"

    def promised(self, value: float) -> dict[str, float | str]:
        """What a report says of this goal beside a figure."""
        return {"must": self.must, "aim": self.aim, "reached": self.met(value)}


BINARY, INT8, FLOAT = "OpenVINO binary", "best int8", "ONNX Runtime fp32"

# layer or network -> peer -> ratio of its time to ours
RATIOS: dict[str, dict[str, Goal]] = {
    "A": {BINARY: Goal(2.5, 3.5), INT8: Goal(4, 5)},
    "B": {BINARY: Goal(1.7, 2.1), INT8: Goal(4, 5)},
    "C": {BINARY: Goal(1.5, 1.8), INT8: Goal(4, 5)},
    "D": {BINARY: Goal(1.5, 1.8), INT8: Goal(4, 5)},
    "resnet18": {BINARY: Goal(1.4, 1.8), INT8: Goal(2, 2.7), FLOAT: Goal(7.5, 10)},
    "resnet34": {BINARY: Goal(1.5, 1.9), INT8: Goal(2.5, 3.2), FLOAT: Goal(10, 13)},
    "vgg_small": {BINARY: Goal(1.25, 1.5), INT8: Goal(4.5, 5.5), FLOAT: Goal(18, 22)},
}
# The same of layers by AVX2, where popcounts are looked up.
BY_AVX2 = {"A": Goal(2.1, 2.1), "B": Goal(1.8, 1.8), "C": Goal(1.8, 1.8), "D": Goal(1.45, 1.45)}
# network of `networks.CASES` -> ratio of ONNX Runtime's time, of the same network in float, to ours
MIXED = {
    "bert_tiny4": Goal(5, 8),
    "deit_tiny": Goal(3, 4),
    "pointnet": Goal(4, 7),
    "fsmn": Goal(5.5, 7),
    "mobilenet_v2": Goal(4, 4.5),
    "ssd300": Goal(3.5, 5),
    "unet": Goal(4, 6),
    "bnext": Goal(4.5, 6),
    "meliusnet": Goal(6, 8),
    "pokebnn": Goal(6, 8),
    "bimlp": Goal(5, 6),
}
RATIOS |= {name: {FLOAT: goal} for name, goal in MIXED.items()}
GLUE = Goal(0.35, 0.35, lower=True)  # share of the time of all kernels, in each of `MIXED`
# share of the roof, of each layer in bits of `MIXED` with enough products to tell
LEAST_OF_ROOF = Goal(0.35, 0.35)
ROOF = Goal(0.85, 0.95)
TWO_THREADS = Goal(1.7, 1.85)
SHARE_OF_C = Goal(0.4, 0.4)

# executed instructions per 1000 binary products, with packing and write-back
INSTRUCTIONS = {
    "A": Goal(33, 29, lower=True),
    "B": Goal(30, 27.5, lower=True),
    "C": Goal(28, 26, lower=True),
    "D": Goal(28.5, 26, lower=True),
}
STEM_INSTRUCTIONS = Goal(356, 356, lower=True)
CYCLES = {
    "cortex-a53": Goal(31, 36),
    "cortex-a55": Goal(31, 36),
    "cortex-a72": Goal(80, 85),
    "neoverse-n1": Goal(80, 85),
}


def wanted(name: str, kernels: str) -> dict[str, Goal]:
    """Of a layer or network, by these kernels: peer -> goal."""
    by_avx2 = {BINARY: BY_AVX2[name]} if kernels == "x86_avx2" and name in BY_AVX2 else {}
    return RATIOS.get(name, {}) | by_avx2
