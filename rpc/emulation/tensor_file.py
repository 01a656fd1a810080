"""The file in which tensors travel to an emulated program and back; native/tensor_file.h is the same in C.

Little-endian: MAGIC, the number of lists, then each list as its number of tensors and the tensors. A tensor
is its DLPack type (code, bits, lanes), its number of dimensions, its shape, its number of bytes and its data.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAGIC = 0x31544242  # "BBT1"
MAX_DIMENSIONS = 16

# DLPack's type codes: int, uint, float, bool.
_DTYPES = {
    **{(0, bits): np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{(1, bits): np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{(2, bits): np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    (6, 8): np.dtype("bool"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def write(path: Path, lists: Sequence[Sequence[np.ndarray]]) -> None:
    """Writes lists of arrays of any shape. Raises TypeError for a dtype that DLPack or numpy lacks."""
    with open(path, "wb") as file:
        file.write(struct.pack("<II", MAGIC, len(lists)))
        for tensors in lists:
            file.write(struct.pack("<I", len(tensors)))
            for tensor in tensors:
                tensor = np.asarray(tensor, order="C")
                if tensor.dtype not in _CODES:
                    raise TypeError(f"An array of {tensor.dtype} cannot be passed to an emulated program.")
                code, bits = _CODES[tensor.dtype]
                file.write(struct.pack("<BBHI", code, bits, 1, tensor.ndim))
                file.write(struct.pack(f"<{tensor.ndim}qQ", *tensor.shape, tensor.nbytes))
                file.write(tensor.tobytes())


def read(path: Path) -> tuple[int, list[list[np.ndarray]]]:
    """The number of lists that the file promises, and the lists that are there whole.

    They differ when the writer died on the way. Raises ValueError for a file that is not what it should be.
    """
    data = memoryview(path.read_bytes())
    position = 0

    def take(layout: str) -> tuple[int, ...]:
        nonlocal position
        size = struct.calcsize(layout)
        if position + size > len(data):
            raise EOFError
        position += size
        return struct.unpack_from(layout, data, position - size)

    def take_tensor() -> np.ndarray:
        nonlocal position
        code, bits, lanes, dimensions = take("<BBHI")
        dtype = _DTYPES.get((code, bits))
        if dtype is None or lanes != 1 or dimensions > MAX_DIMENSIONS:
            raise ValueError(f"has a tensor of DLPack type ({code}, {bits}, {lanes}), which numpy lacks")
        *shape, size = take(f"<{dimensions}qQ")
        count = int(np.prod(shape, dtype=object))
        if min(shape, default=0) < 0 or size != count * dtype.itemsize:
            raise ValueError(f"has a tensor of shape {tuple(shape)} in {size} bytes")
        if position + size > len(data):
            raise EOFError
        position += size
        return np.frombuffer(data, dtype, count, position - size).reshape(shape).copy()

    lists: list[list[np.ndarray]] = []
    try:
        magic, promised = take("<II")
    except EOFError:
        return 0, lists
    if magic != MAGIC:
        raise ValueError("does not begin as a file of tensors")
    try:
        for _ in range(promised):
            (count,) = take("<I")
            lists.append([take_tensor() for _ in range(count)])
    except EOFError:
        return promised, lists
    if position != len(data):
        raise ValueError(f"goes on for {len(data) - position} bytes after its end")
    return promised, lists
