"""Image processing in numpy, which corruptions.py is made of. Images are float (H, W, C), where nothing else
is said."""

import math

import numpy as np
from scipy import ndimage


def blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4)


def smeared(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
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


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle, as large as the whole."""
    height, width, _ = x.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    made = ndimage.zoom(x[top : top + rows, left : left + columns], (factor, factor, 1), order=1)
    top, left = (made.shape[0] - height) // 2, (made.shape[1] - width) // 2
    return made[top : top + height, left : left + width]


def power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def plasma(size: int, decay: float, random: np.random.Generator) -> np.ndarray:
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


def to_hsv(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    sector = np.floor(hue * 6)
    rest = hue * 6 - sector
    low = value * (1 - saturation)
    falling, rising = value * (1 - rest * saturation), value * (1 - (1 - rest) * saturation)
    which = [sector % 6 == number for number in range(6)]
    red = np.select(which, [value, falling, low, low, rising, value])
    green = np.select(which, [rising, value, value, falling, low, low])
    blue = np.select(which, [low, low, rising, value, value, falling])
    return np.clip(np.stack([red, green, blue], 2), 0, 1)


def sampled(x: np.ndarray, places: np.ndarray, border: str) -> np.ndarray:
    """Each channel of (H, W, C) between pixels at the places (H, W, 2), rows first."""
    rows, columns = np.moveaxis(places, 2, 0)
    channels = [
        ndimage.map_coordinates(x[:, :, channel], [rows, columns], order=1, mode=border)
        for channel in range(x.shape[2])
    ]
    return np.stack(channels, 2)


def canny_edges(x: np.ndarray, low: float, high: float) -> np.ndarray:
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


def equalised(x: np.ndarray) -> np.ndarray:
    """uint8 of an even histogram."""
    counts = np.bincount(x.ravel(), minlength=256).cumsum()
    least = counts[x.min()]
    if least == x.size:
        return x
    return np.round((counts - least).clip(0) * (255 / (x.size - least))).astype(np.uint8)[x]
