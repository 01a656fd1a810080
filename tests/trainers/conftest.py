"""A tiny Fashion-MNIST; one thread, as small tensors gain nothing from more."""

from pathlib import Path

import pytest
import torch

from tests.trainers.idx import write_fashion_mnist

torch.set_num_threads(1)


@pytest.fixture
def fashion_mnist(tmp_path: Path) -> Path:
    """A folder with 20 training and 10 test images."""
    write_fashion_mnist(tmp_path)
    return tmp_path
