"""Fashion-MNIST (Xiao et al., 2017, arXiv:1708.07747; MIT licence): 28x28 grey images of 10 classes, padded
to 32x32.

The four .gz files come with Debian's `dataset-fashion-mnist`. The images that are bundled with bibench_tvm
were written by

    python -c "from trainers.tasks.fashion_mnist import write_sample_images as w; \\
               w('bibench_tvm/bundled/fashion_mnist_test.npz', 300)"
"""

import gzip
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.classes import Classification
from trainers.tasks.images import shift

FOLDER = Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2860, 0.3530  # of the unpadded training images in [0, 1]
LICENCE = """\
Fashion-MNIST test images, https://github.com/zalandoresearch/fashion-mnist
The MIT License (MIT). Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
the Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN
AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE
OR OTHER DEALINGS IN THE SOFTWARE.
"""
SHIFT = 1  # pixel, in training


@tasks.register("fashion_mnist")
class FashionMnist(Classification):
    """The whole data set, in memory as uint8 (N, 1, 32, 32): 60,000 training and 10,000 test images.

    In training they are shifted by a pixel at most and not mirrored: all shoes face the same way.
    """

    sizes: Mapping[str, int | str] = {"num_classes": 10, "in_channels": 1}
    example_inputs: Any = (torch.zeros(1, 1, 32, 32),)
    recipe = "short"
    epochs = 2
    batch_size = 64
    licence = LICENCE
    published = "https://github.com/zalandoresearch/fashion-mnist"

    def __init__(self, data: Path | None = None) -> None:
        folder = Path(data) if data else FOLDER
        self.data = {"train": _read_pair(folder, "train"), "test": _read_pair(folder, "t10k")}
        self.identity = identity_of(folder.glob("*-ubyte.gz"), folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(labels) for split, (_, labels) in self.data.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        images, labels = (values[torch.as_tensor(indices)] for values in self.data[split])
        return normalise(images if generator is None else shift(images, SHIFT, generator)), labels


def normalise(images: Tensor) -> Tensor:
    """uint8 pixels -> float32 of mean 0 and standard deviation 1 over the training set; any shape."""
    return (images.float() / 255 - MEAN) / STD


def write_sample_images(path: str | Path, count: int, data: Path | None = None) -> None:
    """Write the first `count` test images, unselected, to an .npz.

    It has `images` uint8 (count, 1, 32, 32), `labels` uint8 (count), `mean` and `std` to normalise images in
    [0, 1] with, and `licence`.
    """
    images, labels = _read_pair(Path(data) if data else FOLDER, "t10k")
    np.savez_compressed(
        path,
        images=images[:count].numpy(),
        labels=labels[:count].numpy().astype(np.uint8),
        mean=np.float32(MEAN),
        std=np.float32(STD),
        licence=LICENCE,
    )


def _read_pair(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
    if (
        images.shape[1:] != (28, 28)
        or labels.shape != images.shape[:1]
        or not len(labels)
        or labels.max() > 9
    ):
        raise DataError(
            f"{folder} should hold 28x28 images with as many labels from 0 to 9, but its {name} files hold "
            f"{images.shape} and {labels.shape}."
        )
    return F.pad(torch.from_numpy(images)[:, None], [2] * 4), torch.from_numpy(labels).long()


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file of unsigned bytes: uint8, in the shape that its header gives."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"There is no {path}. Type ./install.sh data, which installs Debian's dataset-fashion-mnist, or "
            "name the folder with its four .gz files."
        ) from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of unsigned bytes: it should start with 00 00 08.")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path} ends within its header.")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        held = len(content) - start
        raise DataError(f"{path} should hold {math.prod(shape)} values for its shape {shape}, not {held}.")
    return np.frombuffer(bytearray(content[start:]), np.uint8).reshape(shape)
