"""Against what imagecorruptions-imaug made of one image, and against what each corruption is said to do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainers.tasks.imagecorruptions_reference import DRAWN, FILE, FIXED, SEED, picture
from trainers.tasks import DataError
from trainers.tasks.corruptions import CORRUPTIONS, corrupt
from trainers.tasks.severities import CIFAR10_C, IMAGENET_C

# Whose severities are no single scale.
TWO_WAYS = ("elastic_transform", "frost", "glass_blur", "pixelate", "saturate", "snow", "spatter")
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


def same(found: np.ndarray, expected: np.ndarray, share: float = 1e-3) -> bool:
    """But for a small share of pixels, which were rounded down from the other side of a whole number."""
    off = np.abs(found.astype(int) - expected)
    return bool(off.max() <= 1 and (off > 0).mean() < share)


@pytest.mark.parametrize("name", FIXED)
def test_as_the_package(name: str) -> None:
    with np.load(FILE) as reference:
        for severity in range(1, 6):
            found = corrupt(reference["image"], name, severity, 0, IMAGENET_C)
            assert same(found, reference[f"{name}/{severity}"]), severity
    assert np.array_equal(corrupt(picture(), name, 2, 0), corrupt(picture(), name, 2, 1))


@pytest.mark.parametrize("name", DRAWN)
def test_as_the_package_with_its_draws(name: str) -> None:
    with np.load(FILE) as reference:
        for severity in DRAWN[name]:
            random = np.random.RandomState(SEED)
            made = CORRUPTIONS[name](reference["image"], random, *IMAGENET_C[name][severity - 1])
            found = np.clip(made, 0, 255).astype(np.uint8)
            assert same(found, reference[f"{name}/{severity}"], 5e-3), severity  # it computes in float32


@pytest.mark.parametrize("name", CIFAR10_C)
def test_every_severity(name: str) -> None:
    image, random = picture(), np.random.default_rng(0)
    image = np.clip(image + random.normal(size=image.shape) * 12, 0, 255).astype(np.uint8)
    distances, fixed = [], name in FIXED
    for severity in range(1, 6):
        made = corrupt(image, name, severity, 3)
        assert (made.shape, made.dtype) == (image.shape, np.uint8)
        assert np.array_equal(made, corrupt(image, name, severity, 3))
        assert np.array_equal(made, corrupt(image, name, severity, 4)) == fixed
        several = [corrupt(image, name, severity, index).astype(int) - image for index in range(8)]
        distances.append(np.sqrt(np.mean(np.square(several))))
    assert 0 < distances[0] < 90
    assert distances == sorted(distances) or name in TWO_WAYS
    grey = corrupt(image[:, :, :1], name, 3, 3)
    assert (grey.shape, grey.dtype) == ((32, 32, 1), np.uint8)
    assert np.array_equal(grey, image[:, :, :1]) == (name == "saturate")


def test_the_tables() -> None:
    """Those of one number as the authors' make_cifar_c.py has them, and all in their order and lengths."""
    of_one = {name: [row[0] for row in rows] for name, rows in CIFAR10_C.items() if len(rows[0]) == 1}
    assert of_one == {
        "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.1],
        "shot_noise": [500, 250, 100, 75, 50],
        "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
        "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
        "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
        "jpeg_compression": [80, 65, 58, 50, 40],
        "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
        "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    }
    assert [*CIFAR10_C] == [*IMAGENET_C] == [*CORRUPTIONS] and len(CIFAR10_C) == 19
    for table in (CIFAR10_C, IMAGENET_C):
        assert all(len(rows) == 5 and len({len(row) for row in rows}) == 1 for rows in table.values())


@pytest.mark.parametrize("name", NOISES)
def test_how_strong_the_noises_are(name: str) -> None:
    """Their variance by the formulas, on a plain grey."""
    level = 0.4
    image = np.full((200, 200, 3), round(255 * level), np.uint8)
    for severity in (1, 5):
        (strength,) = CIFAR10_C[name][severity - 1]
        made = corrupt(image, name, severity, 0) / 255
        expected = {
            "gaussian_noise": strength,
            "shot_noise": np.sqrt(level / strength),
            "impulse_noise": np.sqrt(strength * ((1 - level) ** 2 + level**2) / 2),
            "speckle_noise": level * strength,
        }[name]
        assert np.sqrt(np.mean((made - level) ** 2)) == pytest.approx(expected, rel=0.05)


def test_glass_blur_moves_pixels() -> None:
    row, column = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    image = np.stack([8 * row, 8 * column, 0 * row], 2).astype(np.uint8)
    made = CORRUPTIONS["glass_blur"](image, np.random.default_rng(0), 0.01, 2, 1).astype(int)
    moved = (made[:, :, :2] - image[:, :, :2]) // 8
    assert (moved[:3] == 0).all() and (moved[3:31, 3:31] != 0).any(2).mean() > 0.8
    assert (np.abs(moved[30, 30]) <= 2).all()  # the first to be moved


def test_motion_blur_is_along_a_line() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[16, 16] = 255
    made = corrupt(image, "motion_blur", 5, 0)[:, :, 0]
    rows, columns = made.nonzero()
    assert 4 <= len(rows) <= 19 and made[16, 16] == made.max()
    line = np.polyfit(columns - 16.0, rows - 16.0, 1)
    assert np.abs(np.polyval(line, columns - 16.0) - (rows - 16.0)).max() < 1 and abs(line[0]) <= 1.1


def test_frost_from_pictures(tmp_path: Path) -> None:
    image = picture()
    for number in range(2):
        ice = np.zeros((300, 200, 3), np.uint8)
        ice[:, :, number] = 200
        Image.fromarray(ice).save(tmp_path / f"frost{number}.png")
    pictures = sorted(tmp_path.glob("*.png"))
    keep, share, _ = CIFAR10_C["frost"][4]
    expected = [keep * image.astype(float) + share * 200 * np.eye(3)[channel] for channel in (0, 1)]
    chosen = set()
    for index in range(8):
        made = corrupt(image, "frost", 5, index, frost_pictures=pictures)
        fits = [bool(np.abs(made - np.clip(each, 0, 255)).max() <= 1) for each in expected]
        assert sum(fits) == 1
        chosen.add(fits.index(True))
    assert chosen == {0, 1}
    (tmp_path / "frost9.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="frost9.png should be a picture of frost"):
        corrupt(image, "frost", 1, 0, frost_pictures=[tmp_path / "frost9.png"])


def test_images_that_are_plain() -> None:
    for level in (0, 255):
        image = np.full((32, 32, 3), level, np.uint8)
        for name, severities in CIFAR10_C.items():
            for parameters in severities:
                assert np.isfinite(CORRUPTIONS[name](image, np.random.default_rng(0), *parameters)).all()
