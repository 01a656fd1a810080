"""The shapes of a model's inputs: those that a user gives, and those that the model leaves open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bibench_tvm.importer.imported import ImportFailed, TensorSpec
from bibench_tvm.importer.sentences import note_on_batch

if TYPE_CHECKING:
    import tvm

InputShapes = Mapping[str | None, tuple[int, ...]]
"""Input name -> shape. The name `None` means the only input of the model."""


def parse_input_shape(text: str) -> tuple[str | None, tuple[int, ...]]:
    """Read `1x3x32x32`, `1,3,32,32` or either with `NAME:` in front; returns (name or None, shape).

    Raises ImportFailed if there is no shape in the text or a size is not a positive integer.
    """
    # ONNX names may hold colons ("input:0"), so the shape is what follows the last one.
    name, _, sizes = text.rpartition(":")
    parts = re.split(r"\s*[x,×]\s*", sizes.strip().strip("[]()"))
    if not all(re.fullmatch(r"[0-9]+", part) and int(part) > 0 for part in parts):
        raise ImportFailed(
            f"{text!r} is not an input shape; write positive sizes joined by x, for example 1x3x32x32 "
            "or data:1x3x32x32."
        )
    return name.strip() or None, tuple(int(part) for part in parts)


def parse_input_shapes(texts: Iterable[str]) -> dict[str | None, tuple[int, ...]]:
    """Several of them. Raises ImportFailed, also where two are of one input."""
    shapes: dict[str | None, tuple[int, ...]] = {}
    for text in texts:
        name, shape = parse_input_shape(text)
        if name in shapes:
            raise ImportFailed(
                f"There are two shapes for the input {name!r}; give one."
                if name
                else "There are two shapes without a name; write NAME:1x3x32x32 for each of several inputs."
            )
        shapes[name] = shape
    return shapes


def shapes_by_name(
    input_shapes: InputShapes | None, names: Sequence[str], where: str
) -> dict[str, tuple[int, ...]]:
    """Resolve the nameless shape and refuse names that the model does not have.

    `where` is how the error calls the model, for example a file name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in (input_shapes or {}).items():
        if name is None:
            if len(names) != 1:
                raise ImportFailed(
                    f"{where} has {len(names)} inputs ({', '.join(names)}), so every --input-shape needs the "
                    f"name of its input, for example {names[0] if names else 'x'}:{_join(shape)}."
                )
            name = names[0]
        if name not in names:
            have = f"its inputs are {', '.join(names)}" if len(names) > 1 else f"its input is {names[0]}"
            raise ImportFailed(f"{where} has no input {name!r}; {have}.")
        if name in shapes:
            raise ImportFailed(f"There are two shapes for the input {name!r} of {where}; give one.")
        shapes[name] = tuple(int(size) for size in shape)
    return shapes


def settled(
    sizes: Mapping[str, Sequence[int | str] | None],
    symbols: Mapping[str, str],
    given: Mapping[str, tuple[int, ...]],
    where: str,
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Input name -> static shape, and notes for the user. Raises ImportFailed.

    sizes: of each input, an open one as it is called in the source, None where not even their number is
    known; symbols: input name -> what its first size is, where inputs may have that in common. A first size
    that alone is open is the batch: that of an input of the same symbol for which a shape is given, else 1.
    """
    batches = {symbols[name]: shape[0] for name, shape in given.items() if shape and name in symbols}
    shapes, notes = {}, []
    for name, have in sizes.items():
        shape = given.get(name)
        known = [size for size in have or () if isinstance(size, int)]
        if shape is None and have and not isinstance(have[0], int) and len(known) == len(have) - 1:
            shape = (batches.get(symbols.get(name, ""), 1), *known)
            notes.append(note_on_batch(name, shape))
        elif shape is None and (have is None or len(known) < len(have)):
            example = "x".join(str(s) if isinstance(s, int) else "1" for s in have or (1, 3, 32, 32))
            raise ImportFailed(
                f"Input {name!r} of {where} has the dynamic shape "
                f"{'(unknown)' if have is None else _join(have)}; give its sizes with --input-shape "
                f"{name}:{example}."
            )
        elif shape is None:
            shape = tuple(known)
        elif have is not None and (
            len(have) != len(shape)
            or any(isinstance(s, int) and s != wanted for s, wanted in zip(have, shape, strict=True))
        ):
            fixed = [s if isinstance(s, int) else "?" for s in have]
            raise ImportFailed(
                f"Input {name!r} of {where} is {_join(fixed)}, so it cannot be {_join(shape)}; export it "
                "again with that shape."
            )
        shapes[name] = shape
    return shapes, notes


def as_input_array(value: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Check one input of a reference run against its spec and return it contiguous.

    Raises ValueError if shape or dtype differ.
    """
    array = np.asarray(value, order="C")  # np.ascontiguousarray makes one dimension of none
    if array.shape != spec.shape or str(array.dtype) != spec.dtype:
        raise ValueError(
            f"Input {spec.name!r} is {array.dtype} {_join(array.shape)}; the model takes "
            f"{spec.dtype} {_join(spec.shape)}."
        )
    return array


def check_input_count(values: Sequence[np.ndarray], specs: Sequence[TensorSpec]) -> None:
    """Raise ValueError unless there is one value per input."""
    if len(values) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(f"The model takes {len(specs)} inputs ({names}); {len(values)} were given.")


def returned_types(module: tvm.IRModule) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of each tensor that `main` returns, as TVM derived them.

    Raises ImportFailed if a shape is not static.
    """
    from tvm import relax

    returned = module["main"].ret_ty
    types = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    for position, ty in enumerate(types):
        if ty.shape is None or not all(hasattr(size, "value") for size in ty.shape):
            raise ImportFailed(
                f"The shape of output {position} of the model depends on the values of the input; a compiled "
                "network needs static shapes, so leave that output out."
            )
    return [(tuple(int(size) for size in ty.shape), str(ty.dtype.dtype)) for ty in types]


def _join(shape: Sequence[int | str]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
