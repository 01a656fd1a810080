"""`python -m bibench_tvm.report DIR --out report.html`: results of the tracks as one page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bibench_tvm.cli.console import (
    AsJson,
    Debug,
    phase,
    print_json,
    reporting,
    results,
    run_command,
    stderr,
)
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.cli.overwriting import refuse_overwriting

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
FORMS = (".html", ".md")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the results.")],
    out: Annotated[Path, typer.Option(help="The page: .html, which needs nothing else, or .md.")] = Path(
        "report.html"
    ),
    figures: Annotated[
        Path | None, typer.Option(help="A folder for each figure as .svg and .png; the .md names them.")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Draw the paper's own figures beside those of the results.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write what `tracks run` found as a page: tables, figures, and the command behind every number.

    Exits with 1, and with a page, if a file of results had to be left out.
    """
    with reporting(as_json=as_json, debug=debug):
        from rpc.missing import need

        if out.suffix not in FORMS:
            raise UsageError(f"--out {out} should end in {' or '.join(FORMS)}.")
        if not out.absolute().parent.is_dir():
            raise UsageError(f"There is no folder {out.absolute().parent} for --out {out}.")
        refuse_overwriting([out], folder.rglob("*.json"))
        need("altair", "vl_convert", "jinja2", "torch")
        from bibench_tvm.cli.whole_file import whole_file
        from bibench_tvm.report.assemble import assemble
        from bibench_tvm.report.drawing import write_pictures
        from bibench_tvm.report.markdown import markdown
        from bibench_tvm.report.page import html
        from bibench_tvm.report.parts import Figure

        page, counts = assemble(folder, paper=paper)
        drawn = [part for section in page.sections for part in section.parts if isinstance(part, Figure)]
        pictures: dict[str, str] = {}
        if figures is not None:
            figures.mkdir(parents=True, exist_ok=True)
            with phase(f"drawing {len(drawn)} figures", len(drawn)) as advance:
                for figure in drawn:
                    svg, _ = write_pictures(figure, figures)
                    pictures[figure.name] = os.path.relpath(svg, out.absolute().parent)
                    advance()
        with phase(f"writing {out}"):
            text = markdown(page, pictures) if out.suffix == ".md" else html(page)
            with whole_file(out) as file:
                file.write(text.encode())
        empty = [section.title for section in page.sections if not section.parts]
        found = results(as_json)
        found.print(
            f"{counts['results']} results, {len(drawn)} figures, {len(page.sections) - len(empty)} of "
            f"{len(page.sections)} sections filled: {out}",
            soft_wrap=True,
        )
        for sentence in page.warnings:
            stderr.print(f"Note: {sentence}", style="yellow", soft_wrap=True)
        if as_json:
            figure_names = [figure.name for figure in drawn]
            print_json({"out": str(out), **counts, "figures": figure_names, "empty": empty})
        if counts["left_out"]:
            raise typer.Exit(1)


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.report")
