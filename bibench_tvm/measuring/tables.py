"""How a report of `bench` reads in a terminal: boards side by side, layers below one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bibench_tvm.measuring.measure import INSTRUCTIONS

Result = Mapping[str, Any]


def show(report: Mapping[str, Any], console: Console) -> None:
    results: Sequence[Result] = report["results"]
    console.print(_summary(results))
    alike: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        alike.setdefault(tuple(layer["name"] for layer in result["layers"]), []).append(result)
    for group in alike.values():
        if group[0]["layers"] or group[0]["other_kernels"]:  # a device without TVM does not say
            console.print(_layers(group))
    for result in results:
        if "against" in result:
            console.print(_against(result, console))
            for sentence in result["against"]["left_out"]:
                console.print(sentence, soft_wrap=True)
    for result in results:
        for warning in result["warnings"]:
            console.print(f"{result['board']['key']}: {warning}", style="yellow", soft_wrap=True)
        if reason := result.get("check", {}).get("reason"):
            said = f"What it computes was not compared: {reason}"
            console.print(f"{result['board']['key']}: {said}", style="yellow", soft_wrap=True)


def cost(value: float, unit: str) -> str:
    """In a cell: milliseconds with their unit in the heading, or instructions, which carry theirs."""
    if unit != INSTRUCTIONS:
        return f"{value:.4f}" if value < 1 else f"{value:,.3f}"
    return f"{value / 1e6:,.3f} M" if value >= 1e5 else f"{value:,.0f}"


def _title(result: Result, results: Sequence[Result]) -> str:
    board = result["board"]["key"]
    name = board if len({r["artifact"] for r in results}) == 1 else f"{result['artifact']} on {board}"
    return f"{name}, emulated" if result["emulated"] else name


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=i == 0, overflow="fold")
    return table


def _summary(results: Sequence[Result]) -> Table:
    models = ", ".join(dict.fromkeys(result["model"] for result in results))
    table = _table(models, "", *(_title(result, results) for result in results))

    def row(name: str, cell: Any) -> None:
        table.add_row(name, *(cell(result) for result in results))

    def latency(field: str) -> Any:
        return lambda r: f"{cost(r['latency_ms'][field], 'ms')} ms" if r["latency_ms"] else "-"

    row("processor", lambda r: f"{r['board']['cpu']}, {r['threads']} thread(s)")
    row("target", lambda r: r["target"])
    if any(result["latency_ms"] for result in results):
        row("latency, median", latency("median"))
        row("latency, 90th percentile", latency("p90"))
        row("latency, spread", lambda r: f"{r['latency_ms']['spread']:.1%}" if r["latency_ms"] else "-")
    if any(result["instructions"] for result in results):
        row(
            "instructions executed",
            lambda r: cost(r["instructions"]["median"], INSTRUCTIONS) if r["instructions"] else "-",
        )
    row("memory of the process, peak", lambda r: f"{r['peak_memory_bytes'] / 2**20:,.1f} MiB")
    row("memory for activations", lambda r: f"{r['activation_bytes']:,} bytes")
    row("artifact", lambda r: f"{r['size_bytes']:,} bytes")
    row("accuracy", _accuracy)
    for name in dict.fromkeys(name for result in results for name in result.get("metrics", {})):
        row(
            f"of the task: {name}",
            lambda r, name=name: f"{r['metrics'][name]:.2%}" if name in r.get("metrics", {}) else "-",
        )
    if any("check" in result for result in results):
        row("the same outputs as by", lambda r: r.get("check", {}).get("by") or "-")
    return table


def _accuracy(result: Result) -> str:
    if result["accuracy"] is None:
        return "-"
    return f"{result['accuracy']['top1']:.2%} of {result['accuracy']['images']}"


def _unit(result: Result) -> str:
    return "instructions" if result["unit"] == INSTRUCTIONS else "ms"


def _layers(results: Sequence[Result]) -> Table:
    headings = [f"{_title(result, results)}, {_unit(result)}" for result in results]
    table = _table("Layer by layer", "layer", "binary", "MMAC", *headings)
    for i, layer in enumerate(results[0]["layers"]):
        cells = [cost(result["layers"][i]["cost"], result["unit"]) for result in results]
        table.add_row(
            layer["name"], "yes" if layer["binarized"] else "no", f"{layer['macs'] / 1e6:,.2f}", *cells
        )
    others = dict.fromkeys(entry["kernel"] for result in results for entry in result["other_kernels"])
    for kernel in others:
        found = [[e for e in r["other_kernels"] if e["kernel"] == kernel] for r in results]
        cells = [cost(e[0]["cost"], r["unit"]) if e else "-" for e, r in zip(found, results, strict=True)]
        table.add_row(kernel, "", "", *cells)
    table.add_row("all of these", "", "", *(cost(r["layers_sum"], r["unit"]) for r in results))
    whole = [(r["latency_ms"] or r["instructions"])["median"] for r in results]
    table.add_row("the network", "", "", *(cost(v, r["unit"]) for v, r in zip(whole, results, strict=True)))
    return table


def _against(result: Result, console: Console) -> Table:
    """Ours as it is, each other as a multiple of ours: that fits a terminal."""
    against = result["against"]
    ours = against["ours"]
    entries = [*against["layers"], {"name": "the network", "like": [], **against["network"]}]
    titles = list(dict.fromkeys(title for entry in entries for title in (*entry["times"], *entry["failed"])))
    others = [title for title in titles if title != ours]
    heading = f"On {_title(result, [result])}: {_unit(result)} of ours, and how many times that others take"
    table = _table(heading, "layer, + more like it", "in the network", "alone", *others)
    notes: dict[str, list[str]] = {}
    for entry in entries:
        cells = [cost(entry["times"][ours]["cost"], against["unit"])]
        for title in others:
            if title in entry["failed"]:
                notes.setdefault(f"{title} failed: {entry['failed'][title]}", []).append(entry["name"])
                cells.append("failed")
            elif time := entry["times"].get(title):
                ratio, shown = time["ratio"], f"{cost(time['cost'], time['unit'])} {time['unit']}"
                cells.append(f"{ratio:.2f}x" if ratio else shown)
            else:
                cells.append("-")
        name = f"{entry['name']} +{len(entry['like'])}" if entry["like"] else entry["name"]
        within = entry.get("in_place")
        table.add_row(name, "" if within is None else cost(within, against["unit"]), *cells)
    for note, names in notes.items():
        console.print(f"{', '.join(names)}: {note}", style="yellow", soft_wrap=True)
    return table
