"""Point clouds of ten kinds of things, made from boxes, cones, ellipsoids and rings of random sizes.

They stand in for ModelNet40 and ShapeNet, neither of which can be had without a form or a large download: the
names are ShapeNet's, the shapes are not, and no figure on them compares with one on those sets. The second
coordinate points up, the first to the front."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from trainers.tasks.clouds import to_unit_sphere

Random = np.random.Generator
Piece = tuple[float, Callable[[Random, int], np.ndarray]]  # its surface, and so many points (n, 3) on it
Parts = dict[str, list[Piece]]

NOISE = 0.15


def box(x: float, y: float, z: float, length: float, height: float, width: float) -> Piece:
    """Centred at (x, y, z)."""
    size = np.array([length, height, width])
    sides = np.array([height * width, length * width, length * height])

    def points(random: Random, count: int) -> np.ndarray:
        inside = random.uniform(-0.5, 0.5, (count, 3))
        side = random.choice(3, count, p=sides / sides.sum())
        inside[np.arange(count), side] = random.choice([-0.5, 0.5], count)
        return inside * size + [x, y, z]

    return 2 * float(sides.sum()), points


def cone(x: float, y: float, z: float, below: float, above: float, length: float, axis: int = 1) -> Piece:
    """The mantle from radius `below` to radius `above` along an axis, whose lower end is at (x, y, z)."""

    def points(random: Random, count: int) -> np.ndarray:
        along, angle = random.uniform(0, 1, count), random.uniform(0, 2 * math.pi, count)
        radius = below + (above - below) * along
        made = np.stack([along * length, radius * np.cos(angle), radius * np.sin(angle)], 1)
        return np.roll(made, axis, 1) + [x, y, z]

    return math.pi * (below + above) * length, points


def ellipsoid(x: float, y: float, z: float, length: float, height: float, width: float) -> Piece:
    """Centred at (x, y, z), with these three diameters."""

    def points(random: Random, count: int) -> np.ndarray:
        made = random.normal(size=(count, 3))
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made * np.array([length, height, width]) / 2 + [x, y, z]

    return math.pi * (length * height + height * width + width * length) / 3, points


def ring(x: float, y: float, z: float, radius: float, thickness: float, start: float, end: float) -> Piece:
    """A bent rod in the plane of front and up, between two angles in half turns."""

    def points(random: Random, count: int) -> np.ndarray:
        angle, around = random.uniform(start, end, count) * math.pi, random.uniform(0, 2 * math.pi, count)
        reach = radius + thickness * np.cos(around)
        made = np.stack([reach * np.cos(angle), reach * np.sin(angle), thickness * np.sin(around)], 1)
        return made + [x, y, z]

    return (end - start) * math.pi * radius * 2 * math.pi * thickness, points


def airplane(r: Random) -> Parts:
    long, thick, span = r.uniform(1.4, 2.2), r.uniform(0.12, 0.25), r.uniform(1.2, 2.4)
    chord, at = r.uniform(0.25, 0.45), r.uniform(-0.2, 0.2)
    engines = [cone(at, -0.15, s * span * r.uniform(0.18, 0.3), 0.08, 0.06, 0.3, 0) for s in (-1, 1)]
    high = r.uniform(0.25, 0.5)
    return {
        "body": [ellipsoid(0, 0, 0, long, thick, thick)],
        "wing": [box(at, 0, 0, chord, 0.03, span)],
        "tail": [
            box(-long * 0.45, high / 2, 0, 0.2, high, 0.03),
            box(-long * 0.45, 0.05, 0, 0.18, 0.03, span / 3),
        ],
        "engine": engines[: r.integers(0, 2) * 2],
    }


def car(r: Random) -> Parts:
    long, wide, high = r.uniform(1.5, 2.2), r.uniform(0.7, 0.9), r.uniform(0.25, 0.45)
    wheel, cabin = r.uniform(0.15, 0.22), r.uniform(0.4, 0.75)
    wheels = [
        cone(x * long * 0.32, -high / 2, z * wide / 2, wheel, wheel, 0.08, 2)
        for x in (-1, 1)
        for z in (-1, 1)
    ]
    return {
        "body": [box(0, 0, 0, long, high, wide)],
        "roof": [box(r.uniform(-0.2, 0.1), high * 0.9, 0, long * cabin, high * 0.8, wide * 0.9)],
        "wheel": wheels,
    }


def chair(r: Random) -> Parts:
    wide, deep, seat, back = r.uniform(0.7, 1), r.uniform(0.7, 1), r.uniform(0.5, 0.9), r.uniform(0.5, 1.1)
    arms = [box(0, seat + 0.3, side * wide / 2, deep * 0.8, 0.06, 0.08) for side in (-1, 1)]
    one_leg = r.uniform() < 0.3
    legs = [cone(x * deep * 0.42, 0, z * wide * 0.42, 0.04, 0.04, seat) for x in (-1, 1) for z in (-1, 1)]
    return {
        "back": [box(-deep / 2, seat + back / 2, 0, 0.08, back, wide)],
        "seat": [box(0, seat, 0, deep, 0.1, wide)],
        "leg": [cone(0, 0, 0, 0.25, 0.06, seat)] if one_leg else legs,
        "arm": arms if r.uniform() < 0.5 else [],
    }


def guitar(r: Random) -> Parts:
    wide, neck, thick = r.uniform(0.6, 0.9), r.uniform(0.8, 1.2), r.uniform(0.1, 0.2)
    return {
        "body": [
            ellipsoid(0, 0, 0, thick, wide * 0.9, wide),
            ellipsoid(0, wide * 0.55, 0, thick, wide * 0.7, wide * 0.75),
        ],
        "neck": [box(0, wide * 0.6 + neck / 2, 0, 0.05, neck, 0.1)],
        "head": [box(0, wide * 0.6 + neck + 0.12, 0, 0.05, 0.25, r.uniform(0.15, 0.25))],
    }


def knife(r: Random) -> Parts:
    blade, handle, wide = r.uniform(0.8, 1.4), r.uniform(0.4, 0.8), r.uniform(0.12, 0.3)
    return {
        "blade": [box(0, blade / 2, 0, wide, blade, 0.03)],
        "handle": [box(0, -handle / 2, 0, wide * 0.8, handle, 0.1)],
    }


def lamp(r: Random) -> Parts:
    high, base, shade = r.uniform(0.7, 1.5), r.uniform(0.2, 0.4), r.uniform(0.3, 0.6)
    top = shade * r.uniform(0.3, 1)
    return {
        "base": [cone(0, 0, 0, base, base * 0.7, 0.12)],
        "pole": [cone(0, 0.1, 0, 0.04, 0.04, high)],
        "shade": [cone(0, high, 0, shade, top, r.uniform(0.3, 0.6))],
    }


def laptop(r: Random) -> Parts:
    wide, deep, angle = r.uniform(1, 1.4), r.uniform(0.7, 1), r.uniform(0.3, 0.75) * math.pi
    surface, flat = box(0, 0, 0, deep, 0.03, wide)

    def screen(random: Random, count: int) -> np.ndarray:
        x, y, z = (flat(random, count) + [deep / 2, 0, 0]).T
        cos, sin = math.cos(angle), math.sin(angle)
        return np.stack([x * cos - y * sin - deep / 2, x * sin + y * cos, z], 1)

    return {"keyboard": [(surface, flat)], "screen": [(surface, screen)]}


def mug(r: Random) -> Parts:
    radius, high = r.uniform(0.35, 0.5), r.uniform(0.7, 1.1)
    hold = high * r.uniform(0.25, 0.35)
    return {
        "body": [cone(0, 0, 0, radius * r.uniform(0.8, 1), radius, high), cone(0, 0, 0, radius, 0, 0.01)],
        "handle": [ring(radius, high / 2, 0, hold, 0.05, -0.5, 0.5)],
    }


def rocket(r: Random) -> Parts:
    high, radius, nose, fin = (
        r.uniform(1, 1.8),
        r.uniform(0.15, 0.3),
        r.uniform(0.3, 0.7),
        r.uniform(0.2, 0.45),
    )
    return {
        "body": [cone(0, 0, 0, radius, radius, high)],
        "nose": [cone(0, high, 0, radius, 0, nose)],
        "fin": [
            box(
                x * (radius + fin / 2),
                0.2,
                z * (radius + fin / 2),
                0.03 + fin * abs(x),
                0.4,
                0.03 + fin * abs(z),
            )
            for x, z in ((-1, 0), (1, 0), (0, -1), (0, 1))
        ],
    }


def table(r: Random) -> Parts:
    long, wide, high = r.uniform(0.7, 1.8), r.uniform(0.7, 1.1), r.uniform(0.4, 1)
    one_leg = r.uniform() < 0.3
    legs = [cone(x * long * 0.45, 0, z * wide * 0.45, 0.04, 0.04, high) for x in (-1, 1) for z in (-1, 1)]
    return {
        "top": [box(0, high, 0, long, 0.07, wide)],
        "leg": [cone(0, 0, 0, 0.3, 0.06, high)] if one_leg else legs,
    }


CATEGORIES: Mapping[str, Callable[[Random], Parts]] = {
    make.__name__: make for make in (airplane, car, chair, guitar, knife, lamp, laptop, mug, rocket, table)
}
PARTS = [len(make(np.random.default_rng(0))) for make in CATEGORIES.values()]  # of each category, 28 in all


def make_clouds(count: int, points: int, seed: int, noise: float = NOISE) -> tuple[np.ndarray, ...]:
    """So many clouds, of all categories in turn: float32 (count, 3, points), categories int64 (count,), parts
    int64 (count, points), numbered on from category to category."""
    made = [_make_cloud(index, points, np.random.default_rng([seed, index]), noise) for index in range(count)]
    clouds, parts = (np.stack(values) for values in zip(*made, strict=True))
    return clouds, np.arange(count) % len(CATEGORIES), parts


def _make_cloud(index: int, points: int, random: Random, noise: float) -> tuple[np.ndarray, np.ndarray]:
    category = index % len(CATEGORIES)
    pieces = [
        (part, surface, sample)
        for part, several in enumerate(
            list(CATEGORIES.values())[category](random).values(), sum(PARTS[:category])
        )
        for surface, sample in several
    ]
    # The root, so that thin parts get points too.
    shares = np.sqrt([surface for _, surface, _ in pieces])
    counts = random.multinomial(points, shares / shares.sum())
    cloud = np.concatenate([sample(random, n) for (_, _, sample), n in zip(pieces, counts, strict=True)])
    parts = np.repeat([part for part, _, _ in pieces], counts)
    angle, order = random.uniform(0, 2 * math.pi), random.permutation(points)
    cos, sin = math.cos(angle), math.sin(angle)
    cloud = to_unit_sphere(cloud @ [[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    cloud += random.normal(size=cloud.shape) * noise
    return cloud[order].T.astype(np.float32), parts[order].astype(np.int64)
