"""Against a loop over shapes and parts."""

import numpy as np
import pytest
import torch

from trainers.tasks.part_iou import PartIoU

PARTS = (2, 3, 1, 4)
FIRST = (0, 2, 5, 6)


def by_loop(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    of_category: dict[int, list[float]] = {}
    for scores, truth in zip(outputs, targets, strict=True):
        category = max(c for c in range(len(PARTS)) if FIRST[c] <= truth[0])
        own = range(FIRST[category], FIRST[category] + PARTS[category])
        said = [max(own, key=lambda part, p=point: scores[part, p]) for point in range(len(truth))]
        values = []
        for part in own:
            here = {p for p, label in enumerate(truth) if label == part}
            there = {p for p, label in enumerate(said) if label == part}
            values.append(len(here & there) / len(here | there) if here | there else 1.0)
        of_category.setdefault(category, []).append(sum(values) / len(values))
    means = [sum(values) / len(values) for values in of_category.values()]
    shapes = [value for values in of_category.values() for value in values]
    return sum(means) / len(means), sum(shapes) / len(shapes)


@pytest.mark.parametrize("seed", range(5))
def test_random_shapes(seed: int) -> None:
    random = np.random.default_rng(seed)
    categories = random.integers(0, 3 if seed == 0 else 4, 30)  # once without the last category
    # Few points, so that parts are often missing from both sides.
    targets = np.stack([FIRST[c] + random.integers(0, PARTS[c], 5) for c in categories])
    outputs = random.normal(size=(30, 10, 5)).astype(np.float32)
    metrics = [PartIoU(PARTS, average) for average in ("class", "instance")]
    for metric in metrics:
        for rows in (slice(0, 7), slice(7, 30)):
            metric.update(torch.from_numpy(outputs[rows]), torch.from_numpy(targets[rows]))
    found = [metric.compute().item() for metric in metrics]
    assert found == pytest.approx(by_loop(outputs, targets), abs=1e-6)
    assert found[0] != pytest.approx(found[1], abs=1e-6)
