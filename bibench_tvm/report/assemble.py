"""The sections of the report in their order."""

from __future__ import annotations

from pathlib import Path

from bibench_tvm.report import sources, summary
from bibench_tvm.report.data import read_data
from bibench_tvm.report.figures import (
    accuracy,
    architecture,
    complexity,
    corruption,
    inference,
    layers,
    training,
)
from bibench_tvm.report.parts import Page

SECTIONS = (
    summary.section,
    accuracy.section,
    architecture.section,
    corruption.section,
    training.section,
    complexity.section,
    inference.section,
    layers.timing,
    layers.roofline,
    layers.reasons,
    sources.seeds,
    sources.commands,
    sources.machines,
)


def assemble(folder: Path, *, paper: bool) -> tuple[Page, dict[str, object]]:
    """The page of a folder of results, and in numbers what it was made of.

    paper: whether the paper's own figures stand beside. Raises BibenchError if there is no folder.
    """
    data = read_data(folder)
    page = Page(
        title="Binarized networks, measured",
        headline=sources.headline(data),
        warnings=sources.warnings(data),
        sections=[make(data, paper) for make in SECTIONS],
    )
    counts = {
        "results": len(data.entries),
        "kinds": sources.kinds(data),
        "left_out": list(data.left_out),
        "faults": list(data.faults),
    }
    return page, counts
