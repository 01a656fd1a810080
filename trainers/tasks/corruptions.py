"""The 19 corruptions of images of Hendrycks and Dietterich, 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR, arXiv:1903.12261.

Their severities are parameters: `CIFAR10_C` are those of CIFAR-10-C, `IMAGENET_C` those of ImageNet-C. What
is random is drawn from a generator of the corruption's, the severity's and the image's own, so that an image
is always corrupted alike; the published sets have other draws. Two corruptions are otherwise than theirs:

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
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from trainers.tasks import DataError

Random = np.random.Generator
Severities = Mapping[str, Sequence[tuple[Any, ...]]]

BOX, NEAREST = Image.Resampling.BOX, Image.Resampling.NEAREST

CIFAR10_C: Severities = {
    "gaussian_noise": [(0.04,), (0.06,), (0.08,), (0.09,), (0.10,)],
    "shot_noise": [(500,), (250,), (100,), (75,), (50,)],
    "impulse_noise": [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)],
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "glass_blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "zoom_blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    "snow": [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    "frost": [(1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "brightness": [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)],
    "contrast": [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)],
    "elastic_transform": [
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ],
    "pixelate": [(0.95, BOX), (0.9, BOX), (0.85, BOX), (0.75, BOX), (0.65, BOX)],
    "jpeg_compression": [(80,), (65,), (58,), (50,), (40,)],
    "speckle_noise": [(0.06,), (0.1,), (0.12,), (0.16,), (0.2,)],
    "gaussian_blur": [(0.4,), (0.6,), (0.7,), (0.8,), (1,)],
    "spatter": [
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
}
IMAGENET_C: Severities = {
    "gaussian_noise": [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)],
    "shot_noise": [(60,), (25,), (12,), (5,), (3,)],
    "impulse_noise": [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)],
    "defocus_blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    "glass_blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    "motion_blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "zoom_blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    "snow": [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ],
    "frost": [(1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)],
    "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    "brightness": [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
    "contrast": [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
    "elastic_transform": [(1.25 * share, 0.01, 0) for share in (0.05, 0.065, 0.085, 0.1, 0.12)],
    "pixelate": [(0.6, NEAREST), (0.5, NEAREST), (0.4, NEAREST), (0.3, NEAREST), (0.25, NEAREST)],
    "jpeg_compression": [(25,), (18,), (15,), (10,), (7,)],
    "speckle_noise": [(0.15,), (0.2,), (0.35,), (0.45,), (0.6,)],
    "gaussian_blur": [(1,), (2,), (3,), (4,), (6,)],
    "spatter": [
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ],
    "saturate": [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
}
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
    return np.clip(_blur(image / 255, sigma), 0, 1) * 255


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
    x = (_blur(image / 255, sigma) * 255).astype(np.uint8).reshape(-1, 3)[source].reshape(image.shape)
    return np.clip(_blur(x / 255, sigma), 0, 1) * 255


def motion_blur(image: np.ndarray, random: Random, radius: int, sigma: float) -> np.ndarray:
    return _smear(image.astype(np.float64), radius, sigma, random.uniform(-45, 45))


def zoom_blur(image: np.ndarray, random: Random, most: float, step: float) -> np.ndarray:
    x = (image / 255).astype(np.float32)
    factors = np.arange(1, most, step)
    total = np.zeros_like(x)
    for factor in factors:
        total += _zoom(x, factor)
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
    flakes = _zoom(random.normal(mean, scale, image.shape[:2])[:, :, None], zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = np.round(_smear(flakes * 255, radius, sigma, random.uniform(-135, -45))) / 255
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
        size = 2 * _power_of_two(max(height, width))
        veil, lines = _plasma(size, 1.6, random), _plasma(size, 1.3, random)
        crystals = (1 - np.abs(2 * lines - 1)) ** 6
        grey = (60 + 110 * veil + 110 * crystals)[:height, :width, None]
        ice = np.clip(grey * [0.85, 1, 1.1], 0, 255)
    return keep * image + share * ice


def fog(image: np.ndarray, random: Random, thick: float, decay: float) -> np.ndarray:
    x, (height, width, _) = image / 255, image.shape
    mist = thick * _plasma(_power_of_two(max(height, width)), decay, random)[:height, :width, None]
    return np.clip((x + mist) * x.max() / (x.max() + thick), 0, 1) * 255


def brightness(image: np.ndarray, random: Random, more: float) -> np.ndarray:
    hue, saturation, value = _to_hsv(image / 255)
    return _from_hsv(hue, saturation, np.clip(value + more, 0, 1)) * 255


def saturate(image: np.ndarray, random: Random, factor: float, more: float) -> np.ndarray:
    hue, saturation, value = _to_hsv(image / 255)
    return _from_hsv(hue, np.clip(saturation * factor + more, 0, 1), value) * 255


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
        x = _sample(x, places @ back[:2] + back[2], "mirror")
    across, down = (
        ndimage.gaussian_filter(field, sigma * height, mode="reflect", truncate=3) * strength * height
        for field in random.uniform(-1, 1, (2, height, width))
    )
    return np.clip(_sample(x, places + np.stack([down, across], 2), "reflect"), 0, 1) * 255


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
    edges = _edges(drops, 50, 150)
    far = ndimage.distance_transform_edt(~edges) if edges.any() else np.full(drops.shape, 20.0)
    relief = _equalise(ndimage.uniform_filter(np.minimum(far, 20), 3, mode="mirror").astype(np.uint8))
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


def _blur(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4)


def _smear(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """One half of a Gaussian along a line, an angle in degrees, as ImageMagick has it."""
    height, width, _ = x.shape
    reach = 2 * radius + 1
    weights = np.exp(-(np.arange(reach) ** 2) / (2 * sigma**2))
    padded = np.pad(x, [(reach, reach), (reach, reach), (0, 0)], mode="edge")
    down, across = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    total = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        top, left = (reach + math.ceil(step * along - 0.5) for along in (down, across))
        total += weight * padded[top : top + height, left : left + width]
    return total


def _zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle, as large as the whole."""
    height, width, _ = x.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    made = ndimage.zoom(x[top : top + rows, left : left + columns], (factor, factor, 1), order=1)
    top, left = (made.shape[0] - height) // 2, (made.shape[1] - width) // 2
    return made[top : top + height, left : left + width]


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _plasma(size: int, decay: float, random: Random) -> np.ndarray:
    """Clouds from 0 to 1, (size, size), by midpoint displacement on a torus (Fournier et al., 1982): the
    noise of each octave is `decay` squared times weaker."""
    field, step, strength = np.zeros((size, size)), size, 1.0
    while step > 1:
        half = step // 2
        corners = field[::step, ::step]
        below = np.roll(corners, -1, 0)
        centres = (corners + below + np.roll(corners + below, -1, 1)) / 4
        centres = centres + random.uniform(-strength, strength, corners.shape)
        above, before = np.roll(centres, 1, 0), np.roll(centres, 1, 1)
        noise = random.uniform(-strength, strength, (2, *corners.shape))
        field[half::step, half::step] = centres
        field[::step, half::step] = (centres + above + corners + np.roll(corners, -1, 1)) / 4 + noise[0]
        field[half::step, ::step] = (centres + before + corners + below) / 4 + noise[1]
        step, strength = half, strength / decay**2
    field -= field.min()
    return field / max(float(field.max()), 1e-12)


def _to_hsv(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    red, green, blue = np.moveaxis(x, 2, 0)
    value, spread = x.max(2), np.ptp(x, 2)
    safe = np.where(spread == 0, 1, spread)
    hue = np.select(
        [value == blue, value == green],
        [4 + (red - green) / safe, 2 + (blue - red) / safe],
        (green - blue) / safe,
    )
    hue = np.where(spread == 0, 0, (hue / 6) % 1)
    return hue, np.where(spread == 0, 0, spread / np.where(value == 0, 1, value)), value


def _from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    sector = np.floor(hue * 6)
    rest = hue * 6 - sector
    low = value * (1 - saturation)
    falling, rising = value * (1 - rest * saturation), value * (1 - (1 - rest) * saturation)
    which = [sector % 6 == number for number in range(6)]
    red = np.select(which, [value, falling, low, low, rising, value])
    green = np.select(which, [rising, value, value, falling, low, low])
    blue = np.select(which, [low, low, rising, value, value, falling])
    return np.clip(np.stack([red, green, blue], 2), 0, 1)


def _sample(x: np.ndarray, places: np.ndarray, border: str) -> np.ndarray:
    """Each channel of (H, W, C) between pixels at the places (H, W, 2), rows first."""
    rows, columns = np.moveaxis(places, 2, 0)
    channels = [
        ndimage.map_coordinates(x[:, :, channel], [rows, columns], order=1, mode=border)
        for channel in range(x.shape[2])
    ]
    return np.stack(channels, 2)


def _edges(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """bool (H, W), of uint8: Canny, 1986, with the sum of both slopes as the strength."""
    height, width = x.shape
    across, down = (ndimage.sobel(x.astype(np.float64), axis, mode="nearest") for axis in (1, 0))
    strength = np.abs(across) + np.abs(down)
    padded = np.pad(strength, 1)
    direction = np.round(np.arctan2(down, across) / (math.pi / 4)).astype(int) % 4
    crest = np.zeros(x.shape, bool)
    for number, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        ahead = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        crest |= (direction == number) & (strength > behind) & (strength >= ahead)
    lines, _ = ndimage.label(crest & (strength > low), np.ones((3, 3)))
    strong = np.unique(lines[crest & (strength > high)])
    return np.isin(lines, strong[strong > 0])


def _equalise(x: np.ndarray) -> np.ndarray:
    """uint8 of an even histogram."""
    counts = np.bincount(x.ravel(), minlength=256).cumsum()
    least = counts[x.min()]
    if least == x.size:
        return x
    return np.round((counts - least).clip(0) * (255 / (x.size - least))).astype(np.uint8)[x]


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
