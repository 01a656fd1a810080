"""The complexity track: what one bit saves in theory."""

from __future__ import annotations

from typing import Any

import altair

from bibench_tvm.report.data import Data, algorithm, algorithms, network
from bibench_tvm.report.figures.style import ROW, across, colour, data, shape, side_by_side
from bibench_tvm.report.parts import Figure, Section, Table, results, row
from bibench_tvm.report.tables import number, run_line
from bibench_tvm.tracks.results import grouped

RATIOS = {"compression": "compression of the parameters", "speedup": "speed-up of the operations"}


def section(of: Data, paper: bool) -> Section:
    about = Section(
        id="complexity",
        title="Theoretical complexity",
        intro=[
            "Counted, not measured: parameters of one bit take a 32nd of their room, products of two bits a "
            "64th of their time (equation 7 of the paper). What stays float decides."
        ],
        empty="No network has been counted yet.",
        command=run_line(of, "--profile", "quick", "--track", "complexity"),
    )
    entries = [entry for entry in of.of("complexity") if entry.key.algorithm != "fp32"]
    points: list[dict[str, Any]] = []
    rows = []
    for entry in entries:
        found = {name: entry.result.figure(name) for name in RATIOS}
        about_it = {"network": network(entry.key), "algorithm": algorithm(entry.key)}
        points += [about_it | {"ratio": name, "x": x} for name, x in found.items() if x is not None and x > 0]
        of_it = (number(found[name]) for name in RATIOS)
        rows.append(row(*about_it.values(), *of_it, entry.key.profile, results([entry.number])))
    if not points:
        return about
    names = algorithms(entries)
    networks = list(dict.fromkeys(str(point["network"]) for point in points))
    charts = []
    for ratio, own in grouped(points, lambda point: point["ratio"]).items():
        base = altair.Chart(data(own), width=250, height=(ROW + 7) * max(len(networks), 2))
        y = altair.Y("network:N", sort=networks, title=None, scale=altair.Scale(domain=networks))
        x = across("x", f"{RATIOS[ratio]}, times")
        marks = base.mark_point(size=60, filled=True, opacity=0.9)
        charts.append(marks.encode(x, y, colour(names, legend=True), shape(names, legend=True)))
    figure = Figure(
        name="complexity",
        title="Compression and speed-up in theory",
        says="Two panels of dots, a row a network: times smaller, and times fewer operations.",
        chart=side_by_side(charts, 2),
        table=Table(
            "Compression and speed-up in theory",
            ["network", "algorithm", "compression", "speed-up", "profile", "results"],
            rows,
            2,
            folded=True,
        ),
    )
    return Section(about.id, about.title, about.intro, [figure])
