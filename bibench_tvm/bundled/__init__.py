"""The network and the images that come with the package, made by the commands in the README."""

from __future__ import annotations

from pathlib import Path

NETWORK = Path(__file__).parent / "fashion_mnist_resnet20_reactnet.pt"
IMAGES = Path(__file__).parent / "fashion_mnist_test.npz"
