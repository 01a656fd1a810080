"""The network and the images that come with the package.

The README has the command that trains the network, trainers/tasks/fashion_mnist.py the one that writes the
images.
"""

from __future__ import annotations

from pathlib import Path

NETWORK = Path(__file__).parent / "fashion_mnist_resnet20_reactnet.pt"
IMAGES = Path(__file__).parent / "fashion_mnist_test.npz"
