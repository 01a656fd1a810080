"""The 19 corruptions of images of Hendrycks and Dietterich, 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR, arXiv:1903.12261.

Their severities are parameters, which severities.py has. What is random is drawn from a generator of the
corruption's, the severity's and the image's own, so that an image is always corrupted alike; the published
sets have other draws. Two corruptions are otherwise than theirs:

- frost: the published photographs of frost are not ours to ship. Without a folder of them, a texture of about
  their brightness and roughness is made here;
- spatter: its edges and distances are computed in another way, which random drops do not show.
"""

import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from trainers.tasks import DataError
from trainers.tasks.image_processing import (
    blurred,
    canny_edges,
    equalised,
    from_hsv,
    plasma,
    power_of_two,
    sampled,
    smeared,
    to_hsv,
    zoomed,
)
from trainers.tasks.severities import BOX, CIFAR10_C, Severities

Random = np.random.Generator

GREY = np.array([0.299, 0.587, 0.114])


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    index: int,
    severities: Severities = CIFAR10_C,
    frost_pictures: Sequence[Path] = (),
) -> np.ndarray:
    """One image, uint8 (H, W, 3) or grey (H, W, 1), in the same shape.

    A grey one is corrupted in colour, and made grey again.

    Args:
        name: one of `CIFAR10_C`; severity: from 1 to 5.
        index: the image's own number, from which with the other two follows what is random.
        frost_pictures: the published photographs of frost, or others; left out, frost is made here.
    """
    random = np.random.default_rng([zlib.crc32(name.encode()), severity, index])
    parameters = severities[name][severity - 1]
    colour = np.broadcast_to(image, (*image.shape[:2], 3))
    pictures = [frost_pictures] if name == "frost" else []
    made = CORRUPTIONS[name](colour, random, *parameters, *pictures)
    made = np.clip(made, 0, 255).astype(np.uint8)
    return made if image.shape[2] == 3 else np.rint(made.mean(2, keepdims=True)).astype(np.uint8)


# Each takes an image uint8 (H, W, 3), a generator and its parameters, and gives pixels from 0 to 255, not yet
# clipped and rounded down.


def gaussian_noise(image: np.ndarray, random: Random, scale: float) -> np.ndarray:
    return np.clip(image / 255 + random.normal(scale=scale, size=image.shape), 0, 1) * 255


def shot_noise(image: np.ndarray, random: Random, photons: float) -> np.ndarray:
    return np.clip(random.poisson(image / 255 * photons) / photons, 0, 1) * 255


def impulse_noise(image: np.ndarray, random: Random, share: float) -> np.ndarray:
    hit, white = random.uniform(size=(2, *image.shape))
    return np.where(hit <= share, np.where(white <= 0.5, 255, 0), image)


def speckle_noise(image: np.ndarray, random: Random, scale: float) -> np.ndarray:
    x = image / 255
    return np.clip(x + x * random.normal(scale=scale, size=image.shape), 0, 1) * 255


def gaussian_blur(image: np.ndarray, random: Random, sigma: float) -> np.ndarray:
    return np.clip(blurred(image / 255, sigma), 0, 1) * 255


def defocus_blur(image: np.ndarray, random: Random, radius: float, soft: float) -> np.ndarray:
    reach, extent = (8, 1) if radius <= 8 else (int(radius), 2)
    x = np.arange(-reach, reach + 1)
    disk = (x[:, None] ** 2 + x**2 <= radius**2).astype(np.float32)
    edge = np.exp(-(np.arange(-extent, extent + 1) ** 2) / (2 * soft**2))
    disk /= disk.sum()
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, edge / edge.sum(), axis, mode="mirror")
    return np.clip(ndimage.correlate(image / 255, disk[:, :, None], mode="mirror"), 0, 1) * 255


def glass_blur(image: np.ndarray, random: Random, sigma: float, most: int, times: int) -> np.ndarray:
    height, width, _ = image.shape
    rows, columns = range(height - most, most, -1), range(width - most, most, -1)
    steps = iter(random.integers(-most, most, (times * len(rows) * len(columns), 2)).tolist())
    source = list(range(height * width))
    for _ in range(times):
        for row in rows:
            for column in columns:
                # Meant as a swap, but in the published sets a copy: numpy's swap of two views is one.
                across, down = next(steps)
                source[row * width + column] = source[(row + down) * width + column + across]
    x = (blurred(image / 255, sigma) * 255).astype(np.uint8).reshape(-1, 3)[source].reshape(image.shape)
    return np.clip(blurred(x / 255, sigma), 0, 1) * 255


def motion_blur(image: np.ndarray, random: Random, radius: int, sigma: float) -> np.ndarray:
    return smeared(image.astype(np.float64), radius, sigma, random.uniform(-45, 45))


def zoom_blur(image: np.ndarray, random: Random, most: float, step: float) -> np.ndarray:
    x = (image / 255).astype(np.float32)
    factors = np.arange(1, most, step)
    total = np.zeros_like(x)
    for factor in factors:
        total += zoomed(x, factor)
    return np.clip((x + total) / (len(factors) + 1), 0, 1) * 255


def snow(
    image: np.ndarray,
    random: Random,
    mean: float,
    scale: float,
    zoom: float,
    least: float,
    radius: int,
    sigma: float,
    keep: float,
) -> np.ndarray:
    x = image / 255
    flakes = zoomed(random.normal(mean, scale, image.shape[:2])[:, :, None], zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = np.round(smeared(flakes * 255, radius, sigma, random.uniform(-135, -45))) / 255
    pale = np.maximum(x, (x @ GREY)[:, :, None] * 1.5 + 0.5)
    return np.clip(keep * x + (1 - keep) * pale + flakes + np.rot90(flakes, 2), 0, 1) * 255


def frost(
    image: np.ndarray,
    random: Random,
    keep: float,
    share: float,
    scale: float,
    pictures: Sequence[Path] = (),
) -> np.ndarray:
    height, width, _ = image.shape
    if pictures:
        ice = _picture(pictures[int(random.integers(len(pictures)))], scale, max(height, width) + 1)
        top, left = (random.integers(n - m) for n, m in zip(ice.shape, (height, width), strict=False))
        ice = ice[top : top + height, left : left + width]
    else:
        size = 2 * power_of_two(max(height, width))
        veil, lines = plasma(size, 1.6, random), plasma(size, 1.3, random)
        crystals = (1 - np.abs(2 * lines - 1)) ** 6
        grey = (60 + 110 * veil + 110 * crystals)[:height, :width, None]
        ice = np.clip(grey * [0.85, 1, 1.1], 0, 255)
    return keep * image + share * ice


def fog(image: np.ndarray, random: Random, thick: float, decay: float) -> np.ndarray:
    x, (height, width, _) = image / 255, image.shape
    mist = thick * plasma(power_of_two(max(height, width)), decay, random)[:height, :width, None]
    return np.clip((x + mist) * x.max() / (x.max() + thick), 0, 1) * 255


def brightness(image: np.ndarray, random: Random, more: float) -> np.ndarray:
    hue, saturation, value = to_hsv(image / 255)
    return from_hsv(hue, saturation, np.clip(value + more, 0, 1)) * 255


def saturate(image: np.ndarray, random: Random, factor: float, more: float) -> np.ndarray:
    hue, saturation, value = to_hsv(image / 255)
    return from_hsv(hue, np.clip(saturation * factor + more, 0, 1), value) * 255


def contrast(image: np.ndarray, random: Random, factor: float) -> np.ndarray:
    x = image / 255
    mean = x.mean((0, 1), keepdims=True)
    return np.clip((x - mean) * factor + mean, 0, 1) * 255


def jpeg_compression(image: np.ndarray, random: Random, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def pixelate(image: np.ndarray, random: Random, share: float, up: Image.Resampling) -> np.ndarray:
    height, width, _ = image.shape
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (int(width * share), int(height * share)), BOX
    )
    return np.asarray(small.resize((width, height), up))


def elastic_transform(
    image: np.ndarray, random: Random, strength: float, sigma: float, bend: float
) -> np.ndarray:
    """All three in shares of the image's height."""
    x, (height, width, _) = image / 255, image.shape
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), 2).astype(np.float64)
    if bend:
        centre, reach = np.array([height, width]) // 2, min(height, width) // 3
        corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
        moved = corners + random.uniform(-bend * height, bend * height, corners.shape)
        back = np.linalg.solve(np.pad(moved, [(0, 0), (0, 1)], constant_values=1), corners)
        x = sampled(x, places @ back[:2] + back[2], "mirror")
    across, down = (
        ndimage.gaussian_filter(field, sigma * height, mode="reflect", truncate=3) * strength * height
        for field in random.uniform(-1, 1, (2, height, width))
    )
    return np.clip(sampled(x, places + np.stack([down, across], 2), "reflect"), 0, 1) * 255


def spatter(
    image: np.ndarray,
    random: Random,
    mean: float,
    scale: float,
    sigma: float,
    least: float,
    thick: float,
    mud: bool,
) -> np.ndarray:
    x = image / 255
    liquid = ndimage.gaussian_filter(random.normal(mean, scale, image.shape[:2]), sigma, mode="nearest")
    liquid = np.where(liquid < least, 0, liquid)
    if mud:
        cover = ndimage.gaussian_filter((liquid > least).astype(np.float64), thick, mode="nearest")
        cover = np.where(cover < 0.8, 0, cover)[:, :, None]
        return np.clip(x * (1 - cover) + cover * [63 / 255, 42 / 255, 20 / 255], 0, 1) * 255
    drops = np.clip(liquid * 255, 0, 255).astype(np.uint8)
    edges = canny_edges(drops, 50, 150)
    far = ndimage.distance_transform_edt(~edges) if edges.any() else np.full(drops.shape, 20.0)
    relief = equalised(ndimage.uniform_filter(np.minimum(far, 20), 3, mode="mirror").astype(np.uint8))
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    relief = np.clip(ndimage.correlate(relief.astype(np.float64), light, mode="mirror"), 0, 255)
    relief = drops * np.round(ndimage.uniform_filter(np.round(relief), 3, mode="mirror"))
    water = thick * relief[:, :, None] / max(float(relief.max()), 1.0)
    return np.clip(x + water * [175 / 255, 238 / 255, 238 / 255], 0, 1) * 255


CORRUPTIONS: Mapping[str, Callable[..., np.ndarray]] = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur),
        *(snow, frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression),
        *(speckle_noise, gaussian_blur, spatter, saturate),
    )
}


@lru_cache(maxsize=8)
def _picture(path: Path, scale: float, least: int) -> np.ndarray:
    """uint8 (H, W, 3), resized, and to no less than `least` pixels a side. Raises DataError."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            scale = max(scale, least / min(image.size))
            size = math.ceil(image.width * scale), math.ceil(image.height * scale)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    except Exception as error:  # whatever a damaged file can lead to
        raise DataError(f"{path} should be a picture of frost, JPEG or PNG, and cannot be read.") from error
