"""What a page is made of, whatever it is written as: sections of figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import altair


Mark = Literal["", "best", "worst"]


@dataclass(frozen=True)
class Cell:
    """mark: among its row; printed: what the paper has there; results: the numbers of those behind it."""

    text: str
    mark: Mark = ""
    printed: str = ""
    results: tuple[int, ...] = ()
    code: bool = False
    head: bool = False  # of a group of rows


@dataclass(frozen=True)
class Table:
    """names: how many of its first columns are text; folded: opened by whoever wants it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """name: of its files; says: what is drawn, for who does not see it; table: the numbers in it."""

    name: str
    title: str
    says: str
    chart: altair.TopLevelMixin
    table: Table


@dataclass(frozen=True)
class Section:
    """empty: what it lacks, if anything, with the command that would bring it."""

    id: str
    title: str
    intro: Sequence[str] = ()
    parts: Sequence[Table | Figure] = ()
    empty: str = ""
    command: str = ""


@dataclass(frozen=True)
class Page:
    title: str
    headline: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)


def row(*cells: str | Cell) -> list[Cell]:
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]


def results(numbers: Sequence[int]) -> Cell:
    """A cell that leads to the commands."""
    return Cell("", results=tuple(numbers))
