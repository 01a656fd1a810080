"""From a chart to pictures, without a browser: SVG for a page, SVG and PNG as files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tvm.cli.whole_file import whole_file

if TYPE_CHECKING:
    from bibench_tvm.report.parts import Figure

_SVG = "http://www.w3.org/2000/svg"
_SCALE = 2.0  # pixels of a PNG for each of the page


def inline_svg(figure: Figure) -> str:
    """An <svg> element for a page: it asks nothing of anywhere, its ink is the text's around it, and it has
    a name for who does not see it. Identifiers in it are its own on the page."""
    root = Xml.fromstring(_svg(figure))
    title = Xml.Element(f"{{{_SVG}}}title", {"id": f"{figure.name}-title"})
    title.text = figure.says
    root.insert(0, title)
    root.set("role", "img")
    root.set("aria-labelledby", f"{figure.name}-title")
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id" and element is not title:
                value = f"{figure.name}-{value}"
            element.set(name, re.sub(r"url\(#", f"url(#{figure.name}-", value))
    return _turn_ink(Xml.tostring(root, encoding="unicode"))


def write_pictures(figure: Figure, folder: Path) -> list[Path]:
    """`folder`/NAME.svg and .png, for paper: dark on white."""
    import vl_convert

    from bibench_tvm.report.figures.style import specification

    spec = specification(figure.chart) | {"background": "white"}
    png = vl_convert.vegalite_to_png(spec, scale=_SCALE, allowed_base_urls=[])
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()
    written = []
    for suffix, content in ((".svg", svg), (".png", png)):
        path = folder / f"{figure.name}{suffix}"
        with whole_file(path) as file:
            file.write(content)
        written.append(path)
    return written


def _svg(figure: Figure) -> str:
    import vl_convert

    from bibench_tvm.report.figures.style import specification

    Xml.register_namespace("", _SVG)
    return vl_convert.vegalite_to_svg(specification(figure.chart), allowed_base_urls=[])


def _turn_ink(svg: str) -> str:
    from bibench_tvm.report.figures.style import INK

    # In attributes alone: a name that is shown may hold the same letters.
    return re.sub(rf'(fill|stroke)="{INK}"', r'\1="currentColor"', svg)
