"""Writes `imagecorruptions_reference.npz`: what imagecorruptions-imaug 1.1.5 (Apache-2.0), which has
ImageNet-C's severities, makes of one image. The tests do not depend on it, since it takes 400 MB and the
system's OpenGL:

    pip install imagecorruptions-imaug==1.1.5
    python -m tests.trainers.tasks.imagecorruptions_reference
"""

from pathlib import Path

import numpy as np
from PIL import Image

FILE = Path(__file__).with_suffix(".npz")
FIXED = (
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
)
# Random ones that draw from numpy's global generator, in the order that ours have, and severities at which
# they compute alike: the package cuts the enlarged snow elsewhere, and the first three spatters are of water.
DRAWN = {
    "gaussian_noise": (1, 5),
    "shot_noise": (1, 5),
    "speckle_noise": (1, 5),
    "motion_blur": (1, 3),
    "snow": (3,),
    "fog": (1, 5),
    "elastic_transform": (1, 5),
    "spatter": (4, 5),
}
SEED = 7


def picture() -> np.ndarray:
    """uint8 (32, 32, 3): smooth colours, and some flat white and black."""
    random = np.random.RandomState(0)
    small = Image.fromarray(random.randint(0, 256, (5, 5, 3)).astype(np.uint8))
    image = np.array(small.resize((32, 32), Image.Resampling.BICUBIC))
    image[10:14], image[24:28, :16] = 255, 0
    return image


def main() -> None:
    from imagecorruptions import corrupt

    image, made = picture(), {}
    for name in (*FIXED, *DRAWN):
        for severity in DRAWN.get(name, range(1, 6)):
            np.random.seed(SEED)
            made[f"{name}/{severity}"] = corrupt(image, corruption_name=name, severity=severity)
    np.savez_compressed(FILE, image=image, **made)


if __name__ == "__main__":
    main()
