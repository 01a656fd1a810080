"""Pascal VOC 2007 (Everingham et al., 2010, "The Pascal Visual Object Classes (VOC) Challenge", IJCV): 5,011
photographs to train on, 4,952 to test on, with objects of 20 classes. Read from `VOCdevkit/VOC2007`."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import torch

from trainers.tasks import DataError, identity_of, read_text, tasks
from trainers.tasks.detection import Objects, Photos
from trainers.tasks.reading import Broken

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
LISTS = {"train": "trainval", "test": "test"}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LARGEST = 1 << 20  # bytes; an annotation has some thousand


@tasks.register("voc07")
class Voc07(Photos):
    """The names of its files in memory; photographs and annotations are read when asked for."""

    sizes: Mapping[str, int | str] = {"num_classes": len(CLASSES), "in_channels": 3, "image_size": 300}
    epochs = 240
    batch_size = 32
    licence = "The photographs are flickr's, under its terms of use; for research."
    published = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"

    def __init__(self, data: Path | None = None) -> None:
        if data is None:
            raise DataError(f"VOC comes with no package: get it at {self.published}, name its folder.")
        places = (data / "VOCdevkit" / "VOC2007", data / "VOC2007", data)
        self.folder = next((place for place in places if place.is_dir()), data)
        self.names: dict[str, Sequence[str]] = {}
        for split, name in LISTS.items():
            path = self.folder / "ImageSets" / "Main" / f"{name}.txt"
            if split == "test" or path.exists():  # without the former it is there for evaluation only
                self.names[split] = _read_list(path, f"VOC is published at {self.published}.")
        for folder, ending in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
            self._find(self.folder / folder, ending)

    @cached_property
    def identity(self) -> str:  # asks for the size of each file, so only where somebody wants it
        lists = {self.folder / "ImageSets" / "Main" / f"{LISTS[split]}.txt" for split in self.names}
        each = [
            f(s, i)
            for f in (self.path, self._annotation)
            for s in self.names
            for i in range(len(self.names[s]))
        ]
        return identity_of({*lists, *(path for path in each if path.exists())}, self.folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(names) for split, names in self.names.items()}

    def path(self, split: str, index: int) -> Path:
        return self.folder / "JPEGImages" / f"{self.names[split][index]}.jpg"

    def objects(self, split: str, index: int) -> Objects:
        path = self._annotation(split, index)
        try:
            if path.stat().st_size > LARGEST:
                raise Broken(f"it is larger than {LARGEST} bytes")
            return read_objects(path.read_bytes())
        except OSError as error:
            raise Broken(f"its annotation {path} cannot be read: {error.strerror}") from error
        except Broken as error:
            raise Broken(f"of its annotation {path}: {error}") from error

    def _annotation(self, split: str, index: int) -> Path:
        return self.folder / "Annotations" / f"{self.names[split][index]}.xml"

    def _find(self, folder: Path, ending: str) -> None:
        """Raise DataError where none of the files of a split are in the folder."""
        try:
            there = set(os.listdir(folder))
        except OSError as error:
            raise DataError(
                f"{folder} cannot be read: {error.strerror}. VOC is published at {self.published}."
            ) from error
        for names in self.names.values():
            if not any(name + ending in there for name in names):
                raise DataError(f"There is no {folder / names[0]}{ending}, nor any other of its list.")


def _read_list(path: Path, remedy: str) -> list[str]:
    """The names of photographs, one a line. No other path can be written there."""
    names = read_text(path, remedy).split()
    for name in names:
        if not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
            raise DataError(f"{path} should have a name such as 000005 in each line, and not {name[:40]!r}.")
    return names


def read_objects(content: bytes) -> Objects:
    """Of an annotation: boxes in pixels that begin where the first pixel does, at 0, and end where the last
    does. Raises Broken."""
    boxes, labels, difficult = [], [], []
    for number, element in enumerate(parse(content).iterfind("object"), 1):
        name = element.findtext("name", "").strip()
        if name not in CLASSES:
            raise Broken(
                f"object {number} should have one of VOC's 20 classes as its name, not {name[:40]!r}"
            )
        try:
            corners = [float(element.findtext(f"bndbox/{corner}", "")) for corner in CORNERS]
        except ValueError as error:
            raise Broken(f"object {number} should have a bndbox with {', '.join(CORNERS)}") from error
        boxes.append([corners[0] - 1, corners[1] - 1, *corners[2:]])
        labels.append(CLASSES.index(name))
        difficult.append(element.findtext("difficult", "0").strip() == "1")
    return Objects(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
    )


def parse(content: bytes) -> Element:
    """The root of an XML document, which may not declare a type, so no entities either. Raises Broken."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter of encodings
        raise Broken("it is no XML") from error
    return builder.close()


def _refuse(*_: object) -> NoReturn:
    raise Broken("it declares a type of document, which an annotation has no need of")
