"""Tiny CIFAR-10 sets in both of its formats; pickles byte by byte as Python 2's numpy wrote them."""

import struct
from pathlib import Path

import numpy as np


def tiny(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (count, 3072) and labels uint8 that count from 0 to 9."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def python_batch(pixels: np.ndarray, labels: list[int], kind: bytes = b"u1") -> bytes:
    """A pickle of protocol 2 with `batch_label`, `labels`, `data` and `filenames`."""
    rows, columns = pixels.shape
    shape = b"J" + struct.pack("<i", rows) + b"J" + struct.pack("<i", columns) + b"\x86"
    empty = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
    none = b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00"
    dtype = b"cnumpy\ndtype\n" + text(kind) + b"K\x00K\x01\x87R(K\x03U\x01|" + none + b"tb"
    values = b"T" + struct.pack("<I", pixels.size) + pixels.tobytes()
    data = empty + b"(K\x01" + shape + dtype + b"\x89" + values + b"tb"
    numbers = b"](" + b"".join(b"J" + struct.pack("<i", label) for label in labels) + b"e"
    names = b"](" + b"".join(text(b"a_%d.png" % index) for index in range(len(labels))) + b"e"
    items = {b"batch_label": text(b"batch"), b"labels": numbers, b"data": data, b"filenames": names}
    return b"\x80\x02}q\x03(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


def write_python(folder: Path, count: int = 4) -> None:
    """`cifar-10-batches-py` with so many images in each batch, of seed 1 to 5 and 0."""
    where = folder / "cifar-10-batches-py"
    where.mkdir()
    for number in range(6):
        pixels, labels = tiny(count, number)
        name = f"data_batch_{number}" if number else "test_batch"
        (where / name).write_bytes(python_batch(pixels, labels.tolist()))


def write_binary(folder: Path, count: int = 4) -> None:
    """The same in `cifar-10-batches-bin`."""
    where = folder / "cifar-10-batches-bin"
    where.mkdir()
    for number in range(6):
        pixels, labels = tiny(count, number)
        name = f"data_batch_{number}.bin" if number else "test_batch.bin"
        (where / name).write_bytes(np.concatenate([labels[:, None], pixels], 1).tobytes())
