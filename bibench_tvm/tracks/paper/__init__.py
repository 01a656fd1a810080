"""The figures that the BiBench paper prints (ICML 2023, arXiv:2301.11233), as `README.md` here says."""

from __future__ import annotations

import csv
import functools
from importlib import resources
from typing import ClassVar, TypeVar

import msgspec

FP32 = "FP32"
ALGORITHMS = ("BNN", "XNOR", "DoReFa", "Bi-Real", "XNOR++", "ReActNet", "ReCU", "FDA")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the files that hold a table, or several that belong together."""

    files: ClassVar[tuple[str, ...]]


class Summary(Row, frozen=True, kw_only=True):
    """Tables 2 and 3: what each track comes to. None: not deployable."""

    files = ("table02_accuracy_summary", "table03_efficiency_summary")
    track: str
    metric: str
    unit: str
    algorithm: str
    value: float | None = None


class Technique(Row, frozen=True, kw_only=True):
    """Table 6: what each algorithm does to weights and activations."""

    files = ("table06_techniques",)
    algorithm: str
    scaling_weight: str = ""
    scaling_activation: str = ""
    redistribution_weight: str = ""
    redistribution_activation: str = ""
    gradient_weight: str = ""
    gradient_activation: str = ""


class StructureError(Row, frozen=True, kw_only=True):
    """Table 7: the error of binary structures against float ones, equation 41."""

    files = ("table07_structure_error",)
    structure: str
    size_kind: str
    size: str  # 64, 14x14 or mean
    dimension: str  # likewise
    value: float
    note: str = ""


class RobustnessIndicator(Row, frozen=True, kw_only=True):
    """Table 8: of networks on CIFAR10-C, percent."""

    files = ("table08_robustness_indicators",)
    architecture: str
    algorithm: str
    value: float


class FloatCorruption(Row, frozen=True, kw_only=True):
    """Table 9: the float ResNet20 on CIFAR10-C. Severity 0 is the clean set, None all sets."""

    files = ("table09_cifar10c_resnet20_fp32",)
    corruption: str
    accuracy: float
    severity: int | None = None


class Vision(Row, frozen=True, kw_only=True):
    """Table 10: images and the classes of point clouds."""

    files = ("table10_vision",)
    task: str
    architecture: str
    metric: str
    algorithm: str
    value: float
    note: str = ""


class Parts(Row, frozen=True, kw_only=True):
    """Table 11: the parts of point clouds, by category; "Overall" too."""

    files = ("table11_shapenet",)
    task: str
    architecture: str
    category: str
    algorithm: str
    value: float
    note: str = ""


class Language(Row, frozen=True, kw_only=True):
    """Table 12: GLUE and speech commands."""

    files = ("table12_language_speech",)
    task: str
    architecture: str
    metric: str
    algorithm: str
    value: float
    subtask: str = ""
    note: str = ""


class Corruption(Row, frozen=True, kw_only=True):
    """Tables 13 and 14: ResNet18 on CIFAR10-C. Severity 0 is the clean set, None all sets."""

    files = ("table13_cifar10c_1of2", "table14_cifar10c_2of2")
    corruption: str
    algorithm: str
    accuracy: float
    severity: int | None = None


class Training(Row, frozen=True, kw_only=True):
    """Tables 15 and 16: ResNet18 on CIFAR10, trained in other ways; quantity: run0 to run4, mean or std."""

    files = ("table15_hyperparameters_1of2", "table16_hyperparameters_2of2")
    algorithm: str
    epochs: int
    optimizer: str
    learning_rate: float
    scheduler: str
    quantity: str
    value: float


class Inference(Row, frozen=True, kw_only=True):
    """Tables 17 to 20: milliseconds of a run on a device, with Larq and with daBNN."""

    files = ("table17-20_hardware_inference",)
    hardware: str
    threads: int
    architecture: str
    larq_fp32_ms: float
    larq_bnn_ms: float
    larq_react_ms: float
    dabnn_fp32_ms: float | None = None
    dabnn_bnn_ms: float | None = None


class OtherCompression(Row, frozen=True, kw_only=True):
    """Table 21: other methods of compression; in parentheses a difference or a ratio."""

    files = ("table21_other_compression",)
    method: str
    quantity: str
    value: float
    in_parentheses: float | None = None


T = TypeVar("T", bound=Row)


@functools.cache
def read(kind: type[T]) -> tuple[T, ...]:
    """All rows of that kind, in the order of the paper. Raises ValueError for a damaged file."""
    found: list[T] = []
    for name in kind.files:
        text = (resources.files(__name__) / f"{name}.csv").read_text(encoding="utf-8")
        reader = csv.DictReader(text.splitlines())
        if set(reader.fieldnames or ()) != set(kind.__struct_fields__):
            raise ValueError(f"{name}.csv should have the columns {', '.join(kind.__struct_fields__)}.")
        for row in reader:
            cells = {key: cell for key, cell in row.items() if cell not in ("", "False")}
            try:
                found.append(msgspec.convert(cells, kind, strict=False))
            except msgspec.ValidationError as error:
                raise ValueError(f"{name}.csv, line {reader.line_num}: {error}.") from error
    return tuple(found)
