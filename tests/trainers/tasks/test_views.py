"""Views of an image whose pixels say where they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.boxes import iou
from trainers.tasks.views import GREY, WHOLE, distort, draw_view, look, map_boxes, mirror

WIDTH, HEIGHT, EXTENT = 200, 100, 300


@pytest.fixture(scope="module")
def places() -> Image.Image:
    """Red says how far right, green how far down, in 1/255 of the image."""
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, (np.arange(HEIGHT) + 0.5) / HEIGHT)
    return Image.fromarray(np.stack([255 * x, 255 * y, 0 * x], 2).round().astype(np.uint8))


@pytest.mark.parametrize("view", [WHOLE, [0.2, 0.3, 0.7, 0.6], [-1, -0.5, 2, 1.5], [0.5, -0.25, 1.75, 0.5]])
def test_a_place_is_where_its_box_is(places: Image.Image, view: torch.Tensor | list[float]) -> None:
    view = torch.as_tensor(view)
    made = np.asarray(look(places, view, EXTENT), float)
    assert made.shape == (EXTENT, EXTENT, 3)
    for x in (0.06, 0.33, 0.6, 0.9):
        for y in (0.1, 0.45, 0.8):
            box = torch.tensor([[x - 0.02, y - 0.02, x + 0.02, y + 0.02]])
            boxes, inside = map_boxes(box, view)
            assert inside.item() == (view[0] <= x <= view[2] and view[1] <= y <= view[3])
            for x1, y1, x2, y2 in (EXTENT * boxes).tolist():
                pixel = made[int((y1 + y2) / 2), int((x1 + x2) / 2)]
                assert pixel == pytest.approx([255 * x, 255 * y, 0], abs=4)
    grey = (made == GREY).all(2).mean()
    size = view[2:] - view[:2]
    seen = (view.clamp(0, 1)[2:] - view.clamp(0, 1)[:2]).prod() / size.prod()
    assert grey == pytest.approx(1 - seen.item(), abs=0.01)


def test_the_whole_view_is_a_plain_resize(places: Image.Image) -> None:
    expected = places.resize((EXTENT, EXTENT), Image.Resampling.BILINEAR)
    assert np.array_equal(look(places, WHOLE, EXTENT), expected)
    boxes = torch.rand(5, 2).repeat(1, 2) + torch.tensor([0, 0, 0.1, 0.1])
    assert torch.equal(map_boxes(boxes.clamp(max=1), WHOLE)[0], boxes.clamp(max=1))


def test_boxes_are_cut_off_and_those_without_a_centre_go() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.6, 0.5], [0.7, 0.0, 1.0, 1.0], [0.3, 0.5, 0.5, 0.5]])
    seen, inside = map_boxes(boxes, torch.tensor([0.2, 0.0, 0.6, 0.5]))
    assert inside.tolist() == [True, False, False]  # the last has no area
    assert seen.flatten().tolist() == pytest.approx([0, 0, 1, 1])


def test_mirror() -> None:
    assert mirror(torch.tensor([[0.0, 0.1, 0.25, 0.5]])).flatten().tolist() == pytest.approx(
        [0.75, 0.1, 1, 0.5]
    )


def test_views_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.6, 0.9, 0.9]])
    views = torch.stack([draw_view(boxes, 2.0, generator) for _ in range(600)])
    sizes = views[:, 2:] - views[:, :2]
    assert 0.25 < (sizes[:, 0] > 1).float().mean() < 0.5  # a half, of which patches are cut
    assert sizes.max() < 4.001 and sizes.min() > 0.299
    assert 0.05 < (views == WHOLE).all(1).float().mean() < 0.3  # a half of a seventh, and where none is found
    uneven = sizes[(sizes[:, 0] != sizes[:, 1])]
    shapes = 2.0 * uneven[:, 0] / uneven[:, 1]
    patches = shapes[(shapes - 2).abs() > 1e-4]
    assert 0.5 <= patches.min() < 0.7 and 1.8 < patches.max() <= 2.001
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    has = ((centres >= views[:, None, :2]) & (centres <= views[:, None, 2:])).all(-1).any(1)
    assert has.all()
    empty = torch.stack([draw_view(boxes[:0], 1.0, generator) for _ in range(20)])
    assert (empty[:, :2] <= 0).all() and (empty[:, 2:] >= 1).all()


def test_patches_overlap_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.tasks.views.LEAST", (0.7,))
    generator, boxes = (
        torch.Generator().manual_seed(0),
        torch.tensor([[0.1, 0.1, 0.8, 0.9], [0.0, 0.0, 0.1, 0.1]]),
    )
    views = torch.stack([draw_view(boxes, 1.0, generator) for _ in range(200)])
    patches = views[views[:, 2] - views[:, 0] < 1]
    assert len(patches) > 90
    assert (iou(patches, boxes[:1]) >= 0.7).all()


def test_colours_change_half_of_the_time(places: Image.Image) -> None:
    generator = torch.Generator().manual_seed(0)
    same = [np.array_equal(distort(places, generator), places) for _ in range(200)]
    assert 0.06 < np.mean(same) < 0.2
