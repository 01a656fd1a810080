"""The report as one HTML page, without a script and without a request to anywhere."""

from __future__ import annotations

from bibench_tvm.report.drawing import inline_svg
from bibench_tvm.report.parts import Figure, Page

TEMPLATE = "page.html.jinja"


def html(page: Page) -> str:
    import jinja2
    from markupsafe import Markup

    # Everything is escaped but the pictures, in which vl-convert has escaped what is text.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bibench_tvm.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["figure"] = lambda part: isinstance(part, Figure)
    environment.filters["picture"] = lambda figure: Markup(inline_svg(figure))
    return environment.get_template(TEMPLATE).render(page=page)
