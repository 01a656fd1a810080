"""CIFAR-10 (Krizhevsky, 2009, "Learning Multiple Layers of Features from Tiny Images"): 32x32 colour images
of 10 classes, from the binary files or the pickles for Python. The pickles are read, and nothing in them is
executed."""

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.classes import Classification
from trainers.tasks.images import mirror, normalise, shift

PUBLISHED = "https://www.cs.toronto.edu/~kriz/cifar.html"
LICENCE = "None is stated; the page asks for the technical report to be cited. For research."
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images in [0, 1]
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
SHIFT = 4  # pixels, in training
PIXELS = 3 * 32 * 32


@tasks.register("cifar10")
class Cifar10(Classification):
    """The whole data set, in memory as uint8 (N, 3, 32, 32): 50,000 training and 10,000 test images."""

    sizes: Mapping[str, int | str] = {"num_classes": 10, "in_channels": 3, "stem": "cifar"}
    example_inputs: Any = (torch.zeros(1, 3, 32, 32),)
    epochs = 200
    batch_size = 64
    licence = LICENCE
    published = PUBLISHED

    def __init__(self, data: Path | None = None) -> None:
        files = {split: find_batches(data, split) for split in BATCHES}
        self.data = {split: read_batches(paths) for split, paths in files.items()}
        root = files["test"][0].parent
        self.identity = identity_of([path for paths in files.values() for path in paths], root)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(labels) for split, (_, labels) in self.data.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        images, labels = (values[torch.as_tensor(indices)] for values in self.data[split])
        if generator is not None:
            images = mirror(shift(images, SHIFT, generator), generator)
        return normalise(images, MEAN, STD), labels


def find_batches(data: Path | None, split: str) -> list[Path]:
    """The files of a split in the folder or in the one that its archive makes there.

    Raises:
        DataError: one is missing.
    """
    if data is None:
        raise DataError(f"CIFAR-10 comes with no package: get it from {PUBLISHED} and name its folder.")
    for folder in (data, data / "cifar-10-batches-bin", data / "cifar-10-batches-py"):
        for ending in (".bin", ""):
            paths = [folder / f"{name}{ending}" for name in BATCHES[split]]
            missing = [path for path in paths if not path.is_file()]
            if not missing:
                return paths
            if len(missing) < len(paths):
                raise DataError(f"There is no {missing[0]}. CIFAR-10 is published at {PUBLISHED}.")
    raise DataError(
        f"{data} holds neither {BATCHES[split][0]} nor {BATCHES[split][0]}.bin, nor does cifar-10-batches-py "
        f"or cifar-10-batches-bin in it. CIFAR-10 is published at {PUBLISHED}."
    )


def read_batches(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,) of the files together. Raises DataError."""
    images, labels = zip(*map(_read_batch, paths), strict=True)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix == ".bin":
        count, rest = divmod(len(content), 1 + PIXELS)
        if rest or not count:
            raise DataError(
                f"{path} should hold {1 + PIXELS} bytes for each image, label and pixels, but has "
                f"{len(content)} bytes."
            )
        records = np.frombuffer(content, np.uint8).reshape(count, 1 + PIXELS)
        pixels, labels = records[:, 1:], records[:, 0].astype(np.int64)
    else:
        pixels, labels = _from_pickle(content, path)
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{path} should have labels from 0 to 9, but they go to {labels.max()}.")
    return pixels.reshape(-1, 3, 32, 32), labels


class _Array:
    """What stands for an array in a pickle: its state is kept, and looked at when all is read."""

    state: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Kind:
    """What stands for the type of an array's elements."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class _Refused(ValueError):
    pass


# The opcodes of dictionaries, lists, tuples, texts, bytes and numbers, of the memo, and those that an array
# takes. Not, for one, that of a buffer, which is made as large as a file says before it is filled.
NEEDED = b"\x80\x95.(N\x88\x89JKMTUX\x8cBC)t\x85\x86\x87]ae}suqr\x94hjc\x93Rb"


class _Unpickler(pickle._Unpickler):  # the one in C takes as much memory as a file tells it to
    """Builds dictionaries, lists, texts, numbers, and of the classes that a file names none but our own."""

    dispatch = {code: pickle._Unpickler.dispatch[code] for code in NEEDED}

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Kind}
        if module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") or name not in known:
            raise _Refused(f"it asks for {module}.{name}")
        return known[name]


def _from_pickle(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        held = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        table = {_text(key): value for key, value in held.items()}
        _, shape, kind, by_columns, values = table["data"].state
        if _text(kind.name) != "u1" or by_columns:
            raise _Refused("its pixels are no bytes in rows")
        if shape[1:] != (PIXELS,) or type(values) is not bytes or len(values) != shape[0] * PIXELS:
            raise _Refused(f"its pixels are of shape {shape}")
        pixels = np.frombuffer(values, np.uint8).reshape(shape)
        if [type(label) for label in table["labels"]] != [int] * len(pixels) or not len(pixels):
            raise _Refused(f"it has {len(table['labels'])} labels for {len(pixels)} images")
        labels = np.array(table["labels"], np.int64)
    except Exception as error:  # whatever a damaged or hostile file can lead to
        why = str(error) if isinstance(error, _Refused) else "it is damaged"
        raise DataError(
            f"{path} should be a pickle with images of {PIXELS} bytes and as many labels, but {why}."
        ) from error
    return pixels, labels


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
