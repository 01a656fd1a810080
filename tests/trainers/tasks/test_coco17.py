"""The loader on a tiny set in COCO's files, and on damaged ones."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainers.tasks.test_imagenet import picture
from trainers.tasks import DataError, tasks
from trainers.tasks.coco17 import Coco17

CATEGORIES = [
    {"id": number, "name": name} for number, name in ((90, "toothbrush"), (1, "person"), (18, "dog"))
]


def image(number: int) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012}.jpg", "width": 80, "height": 50, "license": 1}


def annotation(of: int, category: int, box: list[float], crowd: int = 0) -> dict[str, Any]:
    polygon: Any = {"counts": [1], "size": [1, 1]} if crowd else [[1.0, 2.0]]
    return {
        "id": 1, "image_id": of, "category_id": category, "bbox": box, "iscrowd": crowd, "area": 1,
        "segmentation": polygon,
    }  # fmt: skip


TRAIN = {
    "info": {"year": 2017},
    "categories": CATEGORIES,
    "images": [image(number) for number in (9, 25, 30, 34)],
    "annotations": [
        annotation(30, 90, [10, 5, 20.5, 30]),
        annotation(9, 1, [0, 0, 80.01, 50]),
        annotation(30, 18, [40, 10, 20, 40]),
        annotation(25, 1, [5, 5, 70, 40], crowd=1),  # and nothing else; of 34 there is nothing at all
        annotation(9, 18, [1, 1, 70, 40], crowd=1),
    ],
}
TEST = {
    "categories": CATEGORIES,
    "images": [image(number) for number in (139, 632)],
    "annotations": [annotation(632, 1, [0, 0, 40, 25]), annotation(632, 1, [40, 25, 40, 25], crowd=1)],
}


def write(folder: Path, train: Any, test: Any = TEST) -> Path:
    (folder / "annotations").mkdir(exist_ok=True)
    for name, content in (("train2017", train), ("val2017", test)):
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        file = folder / "annotations" / f"instances_{name}.json"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("train2017", TRAIN), ("val2017", TEST)):
        (tmp_path / name).mkdir()
        for entry in content["images"]:
            picture(80, 50, seed=entry["id"]).save(tmp_path / name / entry["file_name"])
    return write(tmp_path, TRAIN)


def test_batches(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = tasks["coco17"](folder)
        images, targets = task.batch("train", [1, 0])
        tested = task.batch("test", [0, 1])[1]
    assert task.splits == {"train": 2, "test": 2}
    assert (task.sizes["num_classes"], Coco17.sizes["num_classes"]) == (3, 80)
    assert (images.shape, images.dtype, targets["image"].tolist()) == (
        (2, 3, 300, 300),
        torch.float32,
        [30, 9],
    )
    assert targets["labels"].tolist() == [[2, 1], [0, -1]]  # by the order of the numbers of categories
    pixels = targets["boxes"] * torch.tensor([80, 50, 80, 50])
    expected = [[[10, 5, 30.5, 35], [40, 10, 60, 50]], [[0, 0, 80, 50], [0, 0, 0, 0]]]
    assert pixels.numpy() == pytest.approx(np.array(expected), abs=1e-4)
    assert not targets["difficult"].any()
    assert tested["difficult"].tolist() == [[False, False], [False, True]]
    assert (tested["labels"].tolist(), tested["image"].tolist()) == ([[-1, -1], [0, 0]], [139, 632])
    assert task.identity == Coco17(folder).identity
    seen = task.batch("train", [1, 0], torch.Generator().manual_seed(0))
    assert not torch.equal(seen[0], images)
    metrics = task.metrics()
    scores = torch.zeros(2, 2, 4)
    scores[1, 0, 1] = 1
    metrics.update((tested["boxes"], scores), tested)
    assert metrics.compute() == {"mAP": 1, "mAP@.5": 1}
    assert task.metric in metrics.compute()


@pytest.mark.parametrize(
    "box",
    [[-5, 5, 20, 20], [70, 5, 20, 20], [5, 5, -3, 20], [5, 5, 20, 0], [500, 500, 20, 20], [0, 0, 1e300, 20]],
)
def test_photographs_with_broken_boxes_are_left_out(folder: Path, box: list[float]) -> None:
    task = Coco17(write(folder, TRAIN | {"annotations": [*TRAIN["annotations"], annotation(9, 1, box)]}))
    with pytest.warns(UserWarning, match="000000000009.jpg is left out, because one of its boxes, .* 80x50"):
        assert task.batch("train", [0, 1])[1]["image"].tolist() == [30]


def test_what_does_not_belong_is_left_out(folder: Path) -> None:
    unknown = TRAIN | {"annotations": [*TRAIN["annotations"], annotation(9, 2, [1, 1, 5, 5])]}
    task = Coco17(write(folder, unknown))
    with pytest.warns(UserWarning, match="because .*train2017.json has an object in it of a category"):
        assert task.batch("train", [0, 1])[1]["image"].tolist() == [30]
    lost = TRAIN | {"annotations": [annotation(77, 1, [1, 1, 5, 5]), *TRAIN["annotations"]]}
    write(folder, lost)
    with pytest.warns(UserWarning, match="train2017.json has 1 annotations of images .* such as 77;"):
        assert torch.equal(Coco17(folder).batch("train", [1])[0], task.batch("train", [1])[0])
    (folder / "train2017" / "000000000030.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="000000000030.jpg is left out, because it is neither a JPEG nor"):
        assert task.batch("train", [1, 1])[1]["image"].tolist() == []


BROKEN = {
    "is no whole JSON file": [
        "", "{", json.dumps(TRAIN)[:-9], json.dumps(TRAIN).replace("20.5", "NaN"),
        b'{"images": [{"id": 9, "file_name": "\xff"}]}',
        TRAIN | {"images": [{"id": 9, "file_name": "\ud800"}]},
    ],
    "but as a whole is not so": ["[]", "{}", "null"],
    r"but annotations\[0\] is not so": [
        TRAIN | {"annotations": [{"id": 1, "image_id": 9, "category_id": 1}]},
        TRAIN | {"annotations": [{"id": 1, "image_id": 9, "bbox": [1, 1, 2, 2]}]},
    ],
    r"but annotations\[0\].bbox is not so": [TRAIN | {"annotations": [annotation(9, 1, [1, 1, 2])]}],
    r"but annotations\[0\].bbox\[1\] is not so": [
        TRAIN | {"annotations": [annotation(9, 1, [1, "1", 2, 2])]},  # type: ignore[list-item]
        json.dumps(TRAIN).replace("[10, 5,", "[10, 1e999,"),
    ],
    r"but images\[0\].file_name is not so": [
        TRAIN | {"images": [{"id": 9, "file_name": name}]} for name in (None, 201 * "a")
    ],
    r"but images\[0\].id is not so": [
        TRAIN | {"images": [image(number)]} for number in (-1, 1 << 53, 1 << 70)
    ],
    "no two of which have the same id": [
        TRAIN | {"images": [image(9), image(9)]}, TRAIN | {"images": []}, TRAIN | {"categories": []},
        TRAIN | {"categories": CATEGORIES + CATEGORIES[:1]},
    ],
    "should name images such as 000000000139.jpg": [
        TRAIN | {"images": [image(9), {"id": 30, "file_name": name}]}
        for name in ("../secret.jpg", "/etc/passwd", "", "..", "a/b.jpg", "a\0b")
    ],
    "has no object to train with": [TRAIN | {"annotations": []}],
    "should have the same categories": [TRAIN | {"categories": CATEGORIES[:2]}],
    "There is no .*/train2017/000000000001.jpg, nor any other": [
        TRAIN | {"images": [image(1)], "annotations": [annotation(1, 1, [1, 1, 2, 2])]}
    ],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*annotations of images")
@pytest.mark.parametrize("reason", BROKEN)
def test_broken_files_are_refused(folder: Path, reason: str) -> None:
    for content in BROKEN[reason]:
        write(folder, content)
        with pytest.raises(DataError, match=reason):
            Coco17(folder)


def test_what_is_not_the_set(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="get it at https://cocodataset.org"):
        Coco17()
    with pytest.raises(DataError, match="There is no .*/instances_val2017.json. COCO is published at https"):
        Coco17(tmp_path / "nowhere")
    (folder / "train2017").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="train2017 cannot be read: No such file or directory. COCO is"):
        Coco17(folder)
    (folder / "annotations" / "instances_train2017.json").unlink()
    assert Coco17(folder).splits == {"test": 2}
