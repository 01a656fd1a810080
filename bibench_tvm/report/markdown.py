"""The report as Markdown, for a README: what the page has but its look; pictures where they were written."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bibench_tvm.report.parts import Cell, Figure, Page, Table


def markdown(page: Page, pictures: Mapping[str, str]) -> str:
    """pictures: name of a figure -> its file, as the Markdown is to name it; of others the table stands."""
    lines = [f"# {_escape(page.title)}", "", *(f"{_escape(one)}\n" for one in page.headline)]
    if page.warnings:
        lines += ["**Read this first**", "", *(f"- {_escape(one)}" for one in page.warnings), ""]
    for section in page.sections:
        lines += [f"## {_escape(section.title)}", ""]
        if section.parts:
            lines += [f"{_escape(one)}\n" for one in section.intro]
        for part in section.parts:
            if isinstance(part, Figure):
                lines += [f"**{_escape(part.title)}**", ""]
                if path := pictures.get(part.name):
                    lines += [f"![{_escape(part.says)}](<{path}>)", ""]
                else:
                    lines += _table(part.table)
            else:
                lines += [f"**{_escape(part.caption)}**", "", *_table(part)]
        if section.empty:
            lines += [f"{_escape(section.empty)} This would change it:", "", f"    {section.command}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    heads = [_escape(column) or " " for column in table.columns]
    align = ["---" if place < table.names else "---:" for place in range(len(heads))]
    rows = [heads, align, *([_cell(cell) for cell in row] for row in table.rows)]
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def _cell(cell: Cell) -> str:
    text = _escape(cell.text)
    if cell.mark and text:
        text = f"**{text}**" if cell.mark == "best" else f"*{text}*"
    elif cell.head:
        text = f"**{text}**"
    printed = f"({cell.printed})" if cell.printed else ""
    return " ".join(part for part in (text, printed, " ".join(f"\\[{n}\\]" for n in cell.results)) if part)


def _escape(text: str) -> str:
    """What Markdown and HTML in it would read as more than text."""
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", re.sub(r"[&<>]", lambda found: entities[found[0]], text))
