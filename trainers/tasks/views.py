"""How an image with boxes is seen in training: through views drawn at random, as SSD's (Liu et al., 2016,
"SSD: Single Shot MultiBox Detector", ECCV, sections 2.2 and 3.6).

A view is a box in shares of the image, which may reach beyond it: what is there is grey."""

import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from trainers.boxes import area, clip, iou

WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])
GREY = (124, 116, 104)  # ImageNet's mean
ZOOM = 4  # how many times as long and high the view is at most
LEAST = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # overlap of a patch with some box; None for no patch
SMALLEST = 0.3  # side of a patch, in shares of the view
TRIES = 50


def draw_view(boxes: Tensor, aspect: float, generator: torch.Generator) -> Tensor:
    """Half of the time the whole image, and else up to four times as long and high a view that has it in it;
    of that a patch with the centre of some box, at an aspect of 1/2 to 2, that overlaps some box by a bound
    that is drawn too. The whole view where no patch is found, or no box is there.

    Args:
        boxes: (M, 4) in shares of the image; aspect: of its width to its height.

    Returns:
        float32 (4,).
    """
    grows, zoom, *corner = torch.rand(4, generator=generator).tolist()
    zoom = 1 + (ZOOM - 1) * zoom if grows < 0.5 else 1
    x, y = ((1 - zoom) * share for share in corner)
    view = torch.tensor([x, y, x + zoom, y + zoom])
    least = LEAST[int(torch.randint(len(LEAST), (), generator=generator))]
    draws = torch.rand(TRIES, 4, generator=generator)
    if least is None or not len(boxes):
        return view
    sides = SMALLEST + (1 - SMALLEST) * draws[:, :2]
    corners = (1 - sides) * draws[:, 2:]
    patches = view[:2].repeat(2) + zoom * torch.cat([corners, corners + sides], 1)
    shapes = aspect * sides[:, 0] / sides[:, 1]
    right = (
        (shapes >= 0.5)
        & (shapes <= 2)
        & _centred(boxes, patches[:, None]).any(1)
        & (iou(patches, boxes) >= least).any(1)
    )
    return patches[right.nonzero()[0, 0]] if right.any() else view


def look(image: Image.Image, view: Tensor, extent: int) -> Image.Image:
    """What of the image is seen, made square."""
    part = clip(view)
    x1, y1, x2, y2 = (part.double() * torch.tensor([image.width, image.height] * 2)).tolist()
    box = x1, y1, x2, y2
    left, top, right, bottom = (_within(part, view) * extent).round().int().tolist()
    if (left, top, right, bottom) == (0, 0, extent, extent):
        return image.resize((extent, extent), Image.Resampling.BILINEAR, box=box)
    canvas = Image.new("RGB", (extent, extent), GREY)
    if right > left and bottom > top:
        seen = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
        canvas.paste(seen, (left, top))
    return canvas


def map_boxes(boxes: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    """Those whose centre is in the view, in shares of it and clipped, and which these are: bool (M,)."""
    seen = clip(_within(boxes, view))
    inside = _centred(boxes, view) & (area(seen) > 0)
    return seen[inside], inside


def mirror(boxes: Tensor) -> Tensor:
    """Left and right, in shares of the image."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([1 - x2, y1, 1 - x1, y2], -1)


def distort(image: Image.Image, generator: torch.Generator) -> Image.Image:
    """Brightness, contrast and colour, each by 1/2 to 3/2 and half of the time."""
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        happens, factor = torch.rand(2, generator=generator).tolist()
        if happens < 0.5:
            image = change(image).enhance(0.5 + factor)
    return image


def _within(boxes: Tensor, view: Tensor) -> Tensor:
    """Boxes of the image in shares of the view."""
    return (boxes - view[:2].repeat(2)) / (view[2:] - view[:2]).repeat(2)


def _centred(boxes: Tensor, views: Tensor) -> Tensor:
    """Whether the centres of boxes (M, 4) are in views (..., 4)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= views[..., :2]) & (centres <= views[..., 2:])).all(-1)
