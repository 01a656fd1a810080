"""What is tuned: one kernel with choices, named by all that its best choice depends on."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from tvm import tirx

from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.parts.epilogue import Epilogue, Output
from schedules.targets.kernel_target import Choice, KernelTarget

C = TypeVar("C", bound=Choice)
Written = tuple[tuple[str, Packing | None], ...]
"""Of each tensor that a kernel writes, its dtype, after its form where it has one, and how its bits are
packed where it holds bits."""

Work = Literal["popcounts", "multiplications", "instructions"]
"""By what the loop is known in which a kernel spends its time; the last where nothing tells better."""


@dataclass(frozen=True, kw_only=True)
class KernelTask(ABC, Generic[C]):
    """A kind of kernel is a subclass (schedules/records/kinds/), and its fields are the key of a record.

    The element-wise steps before the outputs cost the same in every choice and are not part of the key, so
    that networks share records which differ in a scaling factor or an activation."""

    choice: ClassVar[type[Choice]]
    kinds: ClassVar[tuple[str, ...]]

    outputs: Written

    @property
    @abstractmethod
    def kind(self) -> str:
        """One of `kinds`, by which a record tells what it is for."""

    @property
    @abstractmethod
    def title(self) -> str:
        """For people."""

    @property
    def work(self) -> Work:
        return "instructions"

    @property
    def exact(self) -> bool:
        """Whether every choice computes the same integers; sums of floats round in their own order."""
        return True

    @abstractmethod
    def default(self, target: KernelTarget) -> C:
        """What the kernel has where no record says better."""

    @abstractmethod
    def refusal(self, choice: C) -> str | None:
        """Why the kernel cannot have it, as the end of a sentence; None where it can."""

    @abstractmethod
    def candidates(self, target: KernelTarget) -> list[C]:
        """The default first, in full, then all that is worth a trial: each kernel once, always in one
        order."""

    @abstractmethod
    def bare_kernel(self, choice: C, target: KernelTarget) -> tirx.PrimFunc:
        """One which writes outputs of the same kinds, and computes nothing else."""

    def _fields(self) -> dict[str, Any]:
        """What the key is made of."""
        return asdict(self)

    @property
    def key(self) -> str:
        """Canonical JSON. Of bytes that are written it says so, and not what they stand for."""
        fields = _without_scales({"kind": self.kind, **self._fields()})
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


class Choose(Protocol):
    """What a kernel is made by, where something is known that is better than its default."""

    def __call__(self, task: KernelTask[C], /) -> C | None: ...


def _without_scales(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _without_scales(inner) for name, inner in value.items() if name != "quantizer"}
        return {**kept, "bits": 8} if value.get("quantizer") else kept
    return [_without_scales(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def outputs_of(epilogue: Epilogue) -> Written:
    def numbers(output: Output) -> str:
        return f"{output.form} {output.dtype}" if output.form else output.dtype

    return tuple((numbers(output), output.packing) for output in epilogue.outputs)


def said_of(what: str, conv: Convolution, outputs: Written) -> str:
    """The title of a convolution."""
    kernel, strides = ("x".join(map(str, pair)) for pair in (conv.kernel, conv.strides))
    stride = f" / {strides}" if conv.strides != (1, 1) else ""
    image = f"{conv.height}x{conv.width}x{conv.channels}"
    return f"{what} {kernel}{stride}, {image} to {conv.out_channels}, {said_of_outputs(outputs)}"


def said_of_outputs(outputs: Written) -> str:
    def said(kind: str, packing: Packing | None) -> str:
        if packing:
            return "bytes" if packing.quantizer else "bits"
        return {"max": "maxima", "min": "minima"}.get(kind.split()[0], "floats")

    return "+".join(said(*written) for written in outputs)
