"""Layer by layer: what each took beside libraries, how far it is from the machine's limit, and what stayed
float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair

from bibench_tvm.report.data import FLOAT, Data, Entry, algorithm, algorithms, board, network, short
from bibench_tvm.report.figures.inference import latency, machine, unit
from bibench_tvm.report.figures.style import COLOURS, INK, Rows, data, logarithmic, side_by_side, titled
from bibench_tvm.report.parts import Cell, Figure, Section, Table, results, row
from bibench_tvm.report.tables import NOTHING, cost, number, run_line
from bibench_tvm.tracks.results import Layer, grouped

# In `Result.machine`: what one core does at most in its registers.
BINARY_LIMIT, FLOAT_LIMIT = "binary_products_per_s", "float_products_per_s"
OURS, INSTRUCTIONS = "bibench_tvm", "instructions"
MOST_LAYERS = 60  # that a chart shows
MOST_CHARTS = 8  # of layers: what is more has its table alone


def timing(of: Data, paper: bool) -> Section:
    """Per-layer times of tuned against library kernels."""
    about = Section(
        id="layers",
        title="Layer by layer",
        intro=[
            "What each layer took within the network. Where libraries were timed beside it, bars of the same "
            "layer by itself follow, each library's with floats in and out. Shown is one binarized network "
            "of each architecture on each board, the fastest of those with libraries beside them."
        ],
        empty="No result has times of layers yet.",
        command=run_line(of, "--profile", "quick", "--track", "inference"),
    )
    shown = _shown(of)
    parts: list[Table | Figure] = [_bars(entry, n) for n, entry in enumerate(shown[:MOST_CHARTS], 1)]
    if more := shown[MOST_CHARTS:]:
        parts.append(_further(more))
    if parts and not any(layer.alone for entry in shown for layer in entry.result.layers):
        lacks = (
            "No library was timed beside these layers. What bench shows of an artifact with --against "
            "topi,onnxruntime,default is in no result unless the job that made it was run so."
        )
        return Section(about.id, about.title, [*about.intro, lacks], parts)
    return Section(about.id, about.title, about.intro, parts) if parts else about


def roofline(of: Data, paper: bool) -> Section:
    about = Section(
        id="roofline",
        title="Roofline: how near each layer is to the limit of the processor",
        intro=[
            "Products a second of each layer, over products for each byte of its weights and operand. The "
            "dashed line is what the processor can do at most with exclusive-or, popcount and add in its "
            "registers, without a load or a store; the dotted one is that of float products. No layer can be "
            "above its line, but a float convolution by Winograd's method, which does fewer products than "
            "are counted; a layer far below it waits for memory or is too small."
        ],
        empty="No result has times of layers on a board with a clock yet.",
        command=run_line(of, "--profile", "quick", "--track", "inference"),
    )
    charts: list[Any] = []
    rows: list[list[Cell]] = []
    limits = []
    timed = [entry for entry in _shown(of) if unit(entry) == "s"]
    for place, entries in grouped(timed, machine).items():
        found = [_points(entry) for entry in entries]
        rows += [line for _, lines in found for line in lines]
        if points := [point for own, _ in found for point in own]:
            charts.append(titled(_roof(entries[0], points), place))
            limits.append(_limit(entries[0], BINARY_LIMIT))
    if not charts:
        return about
    columns = ["network", "layer", "binary", "products a byte", "G products/s", "of the limit", "results"]
    figure = Figure(
        name="roofline",
        title="Roofline of every layer",
        says="Points of products a second over products a byte, logarithmic, under the machine's limit.",
        chart=side_by_side(charts, 2),
        table=Table("Layers under the roof", columns, rows, 3, folded=True),
    )
    note = "The limit of the machine is not among these results, so the points stand without their roof."
    return Section(about.id, about.title, [*about.intro, *([] if any(limits) else [note])], [figure])


def reasons(of: Data, paper: bool) -> Section:
    """What stayed float and why."""
    about = Section(
        id="float-layers",
        title="What stayed float, and why",
        intro=["Of every binarized network that was compiled: the layers that are not in bits, by reason."],
        empty="No result says what stayed float yet.",
        command=run_line(of, "--profile", "quick", "--track", "inference"),
    )
    found: dict[tuple[str, ...], list[tuple[Entry, float, float]]] = {}
    for entry in of.of("inference"):
        layers = entry.result.layers
        if not layers or entry.key.algorithm == FLOAT:
            continue
        floats = [layer for layer in layers if not layer.binarized]
        for reason, stayed in grouped(floats, lambda layer: layer.reason or "no reason given").items():
            names = ", ".join(short(layer.name) for layer in stayed[:4]) + (" …" if len(stayed) > 4 else "")
            parts = (_share(stayed, layers, "macs"), _share(stayed, layers, "cost"))
            about_it = (network(entry.key), names, str(len(stayed)), reason)
            found.setdefault(about_it, []).append((entry, *parts))
        if not floats:
            all_binary = (network(entry.key), NOTHING, "0", "none: all layers are in bits")
            found.setdefault(all_binary, []).append((entry, 0.0, 0.0))
    rows = []
    for (name, layer_names, count, reason), own in found.items():
        entries = [entry for entry, _, _ in own]
        shares = (_range([products for _, products, _ in own]), _range([time for _, _, time in own]))
        numbers = results([entry.number for entry in entries])
        rows.append(row(name, ", ".join(algorithms(entries)), layer_names, reason, count, *shares, numbers))
    if not rows:
        return about
    columns = ["network", "algorithms", "layers", "reason", "how many", "of products", "of time", "results"]
    table = Table("Float layers of binarized networks", columns, rows, 4)
    return Section(about.id, about.title, about.intro, [table])


def _share(own: Sequence[Layer], of: Sequence[Layer], what: str) -> float:
    """Percent."""
    whole = sum(getattr(layer, what) for layer in of)
    return 100 * sum(getattr(layer, what) for layer in own) / whole if whole else 0.0


def _range(percents: Sequence[float]) -> str:
    low, high = f"{min(percents):.1f}", f"{max(percents):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _shown(of: Data) -> list[Entry]:
    """Of each network on each board one that is binarized and has layers: the fastest of those that libraries
    were timed beside, if there are such, else of all."""
    there = [e for e in of.of("inference") if e.result.layers and e.key.algorithm != FLOAT]
    groups = grouped(there, lambda e: (network(e.key), board(e.key), tuple(e.result.machine.items())))

    def order(entry: Entry) -> tuple[bool, float]:
        return not any(layer.alone for layer in entry.result.layers), latency(entry.result) or float("inf")

    return [min(own, key=order) for own in groups.values()]


def _bars(entry: Entry, index: int) -> Figure:
    of, layers = unit(entry), entry.result.layers[:MOST_LAYERS]
    small = all(layer.cost < 1e-4 for layer in layers)
    seconds = (1e6, "microseconds") if small else (1e3, "milliseconds")
    scale, title = seconds if of == "s" else (1.0, of)
    libraries = sorted({name for layer in layers for name in layer.alone}, key=lambda n: (n != OURS, n))
    kinds = ["in the network, in bits", "in the network, float", *(f"alone, {short(n)}" for n in libraries)]
    points: list[dict[str, Any]] = []
    rows = []
    for place, layer in enumerate(layers):
        name = f"{place + 1} {short(layer.name, 30)}"
        times = {kinds[0 if layer.binarized else 1]: layer.cost}
        times |= {f"alone, {short(library)}": value for library, value in layer.alone.items()}
        points += [{"layer": name, "kind": kind, "x": scale * value} for kind, value in times.items()]
        alone = [cost(layer.alone[n], of) if n in layer.alone else NOTHING for n in libraries]
        fields = (layer.op, "yes" if layer.binarized else "no", f"{layer.macs / 1e6:,.2f}")
        rows.append(row(name, *fields, cost(layer.cost, of), *alone, results([entry.number])))
    named = f"{network(entry.key)}, {algorithm(entry.key)} on {board(entry.key)}"
    more = len(entry.result.layers) - len(layers)
    columns = ["layer", "op", "binary", "M products", "in the network", *libraries, "results"]
    return Figure(
        name=f"layers-{index}",
        title=f"Time of each layer: {named}" + (f" ({more} more are not shown)" if more else ""),
        says=f"Bars of {title}, a row a layer, a colour for ours and for each library.",
        chart=_chart(points, kinds, title),
        table=Table(f"Time of each layer: {named}", columns, rows, 3, folded=True),
    )


def _further(entries: Sequence[Entry]) -> Table:
    """Of networks that have no chart."""
    rows = []
    for entry in entries:
        of, about_it = unit(entry), (network(entry.key), algorithm(entry.key), board(entry.key))
        for layer in entry.result.layers:
            alone = "; ".join(f"{short(name)} {cost(value, of)}" for name, value in layer.alone.items())
            fields = (short(layer.name), "yes" if layer.binarized else "no")
            rows.append(row(*about_it, *fields, cost(layer.cost, of), alone, results([entry.number])))
    columns = ["network", "algorithm", "board", "layer", "binary", "in the network", "alone", "results"]
    return Table(f"Time of each layer: {len(entries)} further networks", columns, rows, 4, folded=True)


def _chart(points: Rows, kinds: Sequence[str], title: str) -> Any:
    there = [kind for kind in kinds if kind in {point["kind"] for point in points}]
    colours = [COLOURS[kinds.index(kind) % len(COLOURS)] for kind in there]
    legend = altair.Legend(title=None, orient="bottom", columns=2)
    large = altair.Axis(format="~s", tickCount=5) if title == INSTRUCTIONS else altair.Axis(tickCount=6)
    base = altair.Chart(data(points), width=380, height=altair.Step(7 if len(there) > 2 else 14))
    layers = list(dict.fromkeys(point["layer"] for point in points))
    encoded = [
        altair.X("x:Q", title=f"{title}: less is better", axis=large),
        altair.Y("layer:N", sort=layers, title=None),
        altair.Color("kind:N", scale=altair.Scale(domain=there, range=colours), legend=legend),
    ]
    if len(there) > 2:
        encoded.append(altair.YOffset("kind:N", sort=there))
    return base.mark_bar().encode(*encoded)


def _limit(entry: Entry, kind: str) -> float | None:
    """Of all threads of the run; one core's limit is measured."""
    value = entry.result.machine.get(kind)
    return value * (entry.key.threads or 1) if isinstance(value, (int, float)) and value > 0 else None


def _points(entry: Entry) -> tuple[list[dict[str, Any]], list[list[Cell]]]:
    points, rows = [], []
    for place, layer in enumerate(entry.result.layers, 1):
        if layer.cost <= 0 or layer.macs <= 0 or not layer.bytes:
            continue
        limit = _limit(entry, BINARY_LIMIT if layer.binarized else FLOAT_LIMIT)
        rate = layer.macs / layer.cost
        points.append({"kind": _kind(layer), "x": layer.macs / layer.bytes, "y": rate / 1e9})
        share = NOTHING if limit is None else f"{100 * rate / limit:.1f} %"
        of = (f"{place} {short(layer.name)}", "yes" if layer.binarized else "no")
        numbers = (number(layer.macs / layer.bytes, 1), number(rate / 1e9, 1), share)
        rows.append(
            row(f"{network(entry.key)}, {algorithm(entry.key)}", *of, *numbers, results([entry.number]))
        )
    return points, rows


def _kind(layer: Layer) -> str:
    return "in bits" if layer.binarized else "float"


def _roof(entry: Entry, points: Rows) -> Any:
    kinds = [kind for kind in ("in bits", "float") if kind in {point["kind"] for point in points}]
    limits = {kind: _limit(entry, kind) for kind in (BINARY_LIMIT, FLOAT_LIMIT)}
    roofs = {kind: limit / 1e9 for kind, limit in limits.items() if limit is not None}
    heights = [float(point["y"]) for point in points]
    x = logarithmic(altair.X, "x", "products a byte", [float(point["x"]) for point in points])
    y = logarithmic(altair.Y, "y", "G products a second", [*heights, *roofs.values()])
    legend = altair.Legend(title=None, orient="bottom")
    colours = {"in bits": COLOURS[0], "float": COLOURS[1]}
    shapes = {"in bits": "circle", "float": "diamond"}
    both = [
        altair.Color(
            "kind:N", scale=altair.Scale(domain=kinds, range=[colours[k] for k in kinds]), legend=legend
        ),
        altair.Shape(
            "kind:N", scale=altair.Scale(domain=kinds, range=[shapes[k] for k in kinds]), legend=legend
        ),
    ]
    dots = altair.Chart(data(points), width=250, height=220).mark_point(size=60, filled=True, opacity=0.9)
    layers: list[Any] = [dots.encode(x, y, *both)]
    for kind, limit in roofs.items():
        dash = [7, 4] if kind == BINARY_LIMIT else [2, 3]
        roof = altair.Chart(data([{"y": limit}])).mark_rule(strokeDash=dash, color=INK, opacity=0.8)
        layers.append(roof.encode(y=y))
    return altair.layer(*layers)
