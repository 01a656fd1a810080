"""A tiny Fashion-MNIST in the format of the real one; one thread, as small tensors gain nothing from more."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def idx() -> Callable[[np.ndarray], bytes]:
    """What an idx file of the array holds."""
    return _idx


@pytest.fixture
def fashion_mnist(tmp_path: Path) -> Path:
    """A folder with 20 training and 10 test images of noise, whose labels count from 0 to 9."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 20), ("t10k", 10)):
        images, labels = generator.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))
    return tmp_path


def _idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()
