"""Images with their classes, in the form of the bundled ones, read with numpy alone: a board has no torch."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from bibench_tvm.cli.errors import UsageError

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error)


def load_images(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an .npz with `images` uint8 (N, C, H, W), `labels` integers (N), `mean` and `std` to normalise
    images in [0, 1] with, each a number or one for each channel.

    Gives float32 (N, C, H, W), normalised, and int64 (N). Raises UsageError.
    `trainers.tasks.fashion_mnist.write_sample_images` writes such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels, mean, std = (file[key] for key in ("images", "labels", "mean", "std"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.") from error
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, *_ZIP_ERRORS) as error:
        raise UsageError(f"{path} is not a whole .npz with images, labels, mean and std.") from error
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UsageError(
            f"{path} should hold images uint8 (N, C, H, W), but they are {images.dtype} {images.shape}."
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{path} should hold {len(images)} integers as labels, but has {labels.dtype} {labels.shape}."
        )
    channels = images.shape[1]
    for name, value in {"mean": mean, "std": std}.items():
        usable = value.dtype.kind in "fiu" and value.size in (1, channels) and np.isfinite(value).all()
        if not usable or (name == "std" and (value <= 0).any()):
            raise UsageError(f"{path} should hold as {name} one number, or {channels}, one for each channel.")
    mean, std = (value.astype(np.float32).reshape(1, -1, 1, 1) for value in (mean, std))
    return (images.astype(np.float32) / 255 - mean) / std, labels.astype(np.int64)
