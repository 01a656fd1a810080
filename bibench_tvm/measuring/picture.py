"""A comparison of `bench --against` as a picture, .png and .svg: bars for each layer and for the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bibench_tvm.cli.whole_file import whole_file
from bibench_tvm.measuring.measure import INSTRUCTIONS

_WIDTH = 0.8


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Writes `file`.png and `file`.svg. Only what ran on the board is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    against = result["against"]
    entries = [*against["layers"], {"name": "the network", **against["network"]}]
    # Without a ratio are those that ran elsewhere or have another unit.
    drawn = [{t: time["cost"] for t, time in e["times"].items() if time["ratio"]} for e in entries]
    titles = list(dict.fromkeys(title for costs in drawn for title in costs))
    figure, axes = pyplot.subplots(figsize=(2 + 1.1 * len(entries), 4.8), layout="constrained")
    width = _WIDTH / len(titles)
    for i, title in enumerate(titles):
        bars = {x + (i + 0.5) * width - _WIDTH / 2: c[title] for x, c in enumerate(drawn) if title in c}
        axes.bar(list(bars), list(bars.values()), width, label=title)
    axes.set_yscale("log")
    unit = "executed instructions, emulated" if against["unit"] == INSTRUCTIONS else "milliseconds"
    axes.set_ylabel(f"{unit} (logarithmic)")
    axes.set_xticks(range(len(entries)), [entry["name"] for entry in entries], rotation=45, ha="right")
    axes.set_title(f"{result['model']} on {result['board']['key']}: lower is faster")
    figure.legend(loc="outside right upper")
    for suffix in (".png", ".svg"):
        with whole_file(file.with_name(file.name + suffix)) as picture:
            figure.savefig(picture, format=suffix[1:])
    pyplot.close(figure)
