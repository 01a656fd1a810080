"""A tiny Fashion-MNIST in the format of the real one."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """What an idx file of the array holds."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_fashion_mnist(folder: Path, train: int = 20, test: int = 10) -> None:
    """So many training and test images of noise, whose labels count from 0 to 9."""
    generator = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        images, labels = generator.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
