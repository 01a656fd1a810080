"""A stand-in for VOC and COCO, made here: items of Fashion-MNIST, tinted, on two photographs that come with
scikit-learn, where they are to be found."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.boxes import iou
from trainers.tasks import DataError, tasks
from trainers.tasks.detection import Detection, Objects, collate
from trainers.tasks.fashion_mnist import FashionMnist
from trainers.tasks.imagenet import MEAN, STD
from trainers.tasks.images import normalise

CLASSES = {0: "T-shirt", 1: "trouser", 5: "sandal", 8: "bag", 9: "ankle boot"}  # by Fashion-MNIST's numbers
COUNTS = {"train": 1200, "validation": 150, "test": 200}
EXTENT = 128
SIDES = 40, 72  # pixels of the longer side of an item
MOST = 4  # items
TRIES = 5  # to find a place for one that hides no other
APART = 448  # columns of a photograph; before it is the ground for training, behind it that for judging


@tasks.register("standin_detection")
class StandinDetection(Detection):
    """Images float32 (N, 3, 128, 128) with one to four items of five classes.

    An image is made when asked for, of its place in its split; in training of the generator, so that none
    comes twice. Items and ground of the three splits are different ones, but for those of validation and
    test, which share the ground.

    Args:
        data: the folder of Fashion-MNIST.
    """

    sizes: Mapping[str, int | str] = {
        "num_classes": len(CLASSES), "in_channels": 3, "image_size": EXTENT
    }  # fmt: skip
    example_inputs: Any = (torch.zeros(1, 3, EXTENT, EXTENT),)
    epochs = 12
    batch_size = 16
    licence = (
        "A stand-in, whose figures compare with no paper's. The photographs are danielbuechele's and "
        "vultilion's of flickr, CC BY 2.0. " + FashionMnist.licence
    )
    published = (
        "Nowhere: a stand-in for VOC and COCO, made by trainers/tasks/standin_detection.py of "
        f"scikit-learn's photographs and of {FashionMnist.published}"
    )

    def __init__(self, data: Path | None = None) -> None:
        whole = FashionMnist(data).data
        train, test = (_choose(*whole[split]) for split in ("train", "test"))
        held_out = len(train[1]) // 10
        self.items = {
            "train": tuple(values[held_out:] for values in train),
            "validation": tuple(values[:held_out] for values in train),
            "test": test,
        }
        if not all(len(labels) for _, labels in self.items.values()):
            raise DataError("Fashion-MNIST should have at least ten items for training and one to test with.")
        photos = load_photos()
        self.grounds = dict.fromkeys(COUNTS, photos[:, :, APART:]) | {"train": photos[:, :, :APART]}
        digest = hashlib.sha256()
        for split in COUNTS:
            image, objects = self.make(split, np.random.default_rng(0))
            for array in (*self.items[split], self.grounds[split], image, objects.boxes.numpy()):
                digest.update(array.tobytes())
        self.identity = digest.hexdigest()

    @property
    def splits(self) -> Mapping[str, int]:
        return COUNTS

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        seeds = [(list(COUNTS).index(split), int(index)) for index in indices]
        if generator is not None:
            seeds = torch.randint(2**62, (len(indices), 2), generator=generator).tolist()
        made = [self.make(split, np.random.default_rng(seed)) for seed in seeds]
        images = np.array([image for image, _ in made], np.uint8).reshape(len(made), EXTENT, EXTENT, 3)
        targets = collate([objects for _, objects in made], [int(index) for index in indices])
        return normalise(torch.from_numpy(images).movedim(3, 1), MEAN, STD), targets

    def make(self, split: str, random: np.random.Generator) -> tuple[np.ndarray, Objects]:
        """uint8 (128, 128, 3) and what is in it. An item for which no place is found is left out."""
        items, labels = self.items[split]
        ground = random.choice(self.grounds[split])
        top, left = (random.integers(side - EXTENT + 1) for side in ground.shape[:2])
        image = ground[top : top + EXTENT, left : left + EXTENT][:, :: random.choice([-1, 1])].copy()
        boxes, found = torch.zeros(0, 4), []
        for chosen in random.integers(len(labels), size=random.integers(1, MOST + 1)):
            item = _resize(items[chosen], int(random.integers(SIDES[0], SIDES[1] + 1)))
            high, wide = item.shape
            for _ in range(TRIES):
                top, left = random.integers(EXTENT - high + 1), random.integers(EXTENT - wide + 1)
                box = torch.tensor([[left, top, left + wide, top + high]]) / EXTENT
                if not (iou(boxes, box) > 0.05).any():
                    _paint(image[top : top + high, left : left + wide], item, random.integers(96, 256, 3))
                    boxes = torch.cat([boxes, box])
                    found.append(int(labels[chosen]))
                    break
        return image, Objects(boxes, torch.tensor(found), torch.zeros(len(found), dtype=torch.bool))


def load_photos() -> np.ndarray:
    """uint8 (2, 427, 640, 3): a temple in China, a flower."""
    from sklearn.datasets import load_sample_images  # takes a second to import

    return np.stack(load_sample_images().images)


def _choose(images: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The items of the five classes, uint8 (N, 32, 32), and which of these they are, int64 (N,)."""
    numbers = torch.tensor(list(CLASSES))
    of_class = labels[:, None] == numbers
    chosen = of_class.any(1)
    return images[chosen, 0].numpy(), of_class[chosen].long().argmax(1).numpy()


def _resize(item: np.ndarray, side: int) -> np.ndarray:
    """What of it is not empty, with its longer side at so many pixels."""
    rows, columns = (np.flatnonzero(item.max(axis) > 32) for axis in (1, 0))
    if len(rows):
        item = item[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shape = [max(4, round(side * extent / max(item.shape))) for extent in (item.shape[1], item.shape[0])]
    return np.asarray(Image.fromarray(item).resize((shape[0], shape[1]), Image.Resampling.BILINEAR))


def _paint(place: np.ndarray, item: np.ndarray, tint: np.ndarray) -> None:
    """Cover uint8 (H, W, 3) with the item (H, W) where it is not dark."""
    light = item[..., None] / 255
    cover = np.minimum(4 * light, 1)
    place[:] = (1 - cover) * place + cover * tint * (0.3 + 0.7 * light)
