"""How figures look: one colour and one shape an algorithm on all of them, and ink that a page can turn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair

from bibench_tvm.report.data import LABELS

# Takes the colour of the text around it: see `drawing`.
INK = "#010203"
# Each has a contrast of 3 on white and on the dark page.
COLOURS = ("#3b7dd8", "#d9700a", "#2e9e5b", "#d6455d", "#9065d4", "#a5713f", "#cf55a5", "#1a93a3")
SHAPES = ("square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
PANEL, ROW = 230, 17
_BOTH = dict(zip(LABELS, [(INK, "circle"), *zip(COLOURS, (*SHAPES, "circle"), strict=True)], strict=True))
_STYLES = {label: _BOTH[name] for name, label in LABELS.items()}

Rows = Sequence[Mapping[str, Any]]


def style_of(name: str) -> tuple[str, str]:
    """The colour and shape of an algorithm, as it is called on the page; those unknown share one."""
    return _STYLES.get(name.partition(" (")[0], ("#808080", "stroke"))


def data(rows: Rows) -> altair.Data:
    return altair.Data(values=[dict(row) for row in rows])


def colour(names: Sequence[str], *, legend: bool = False) -> altair.Color:
    scale = altair.Scale(domain=list(names), range=[style_of(name)[0] for name in names])
    return altair.Color("algorithm:N", scale=scale, legend=_legend(names) if legend else None)


def shape(names: Sequence[str], *, legend: bool = False) -> altair.Shape:
    scale = altair.Scale(domain=list(names), range=[style_of(name)[1] for name in names])
    return altair.Shape("algorithm:N", scale=scale, legend=_legend(names) if legend else None)


def _legend(names: Sequence[str]) -> altair.Legend:
    return altair.Legend(title=None, orient="bottom", columns=min(len(names), 5), symbolOpacity=1)


def by_algorithm(names: Sequence[str]) -> altair.Y:
    """A row an algorithm."""
    return altair.Y("algorithm:N", sort=list(names), title=None, scale=altair.Scale(domain=list(names)))


def across(field: str, title: str, *, zero: bool = False) -> altair.X:
    scale = altair.Scale(zero=zero) if zero else altair.Scale(zero=False, padding=8)
    return altair.X(f"{field}:Q", title=title, scale=scale, axis=altair.Axis(tickCount=5))


def logarithmic(channel: Any, field: str, title: str, values: Sequence[float], *, large: bool = False) -> Any:
    """values: all positive; large: numbers in thousands and millions, by their letters."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = {1: (1, 1.5, 2, 3, 4, 5, 7), 2: (1, 2, 5)}.get(high - low, (1,))
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    axis = altair.Axis(values=ticks, format="~s" if large else "~g", labelOverlap="greedy")
    scale = altair.Scale(type="log", nice=False, padding=15)
    return channel(f"{field}:Q", title=title, scale=scale, axis=axis)


def dots(rows: Rows, names: Sequence[str], title: str, width: int = PANEL) -> Any:
    """A dot a row with the interval from `low` to `high`, where it has one; a stroke where `printed` is."""
    base = altair.Chart(data(rows), width=width, height=ROW * max(len(names), 2))
    y = by_algorithm(names)
    spread = base.mark_rule(strokeWidth=2).encode(across("low", title), y, colour(names), x2="high:Q")
    point = base.mark_point(size=60, filled=True, opacity=1).encode(
        across("x", title), y, colour(names), shape(names)
    )
    if not (printed := [row for row in rows if row.get("printed") is not None]):
        return altair.layer(spread, point)
    stroke = altair.Chart(data(printed)).mark_tick(color=INK, thickness=2, size=ROW - 3)
    return altair.layer(stroke.encode(across("printed", title), y), spread, point)


def side_by_side(charts: Iterable[Any], columns: int) -> altair.ConcatChart:
    return altair.concat(*charts, columns=columns).resolve_scale(
        x="independent", y="independent", color="shared", shape="shared"
    )


def titled(chart: Any, *lines: str) -> Any:
    # As a list, a title is a text whatever it holds.
    return chart.properties(
        title=altair.TitleParams(text=list(lines), anchor="start", fontSize=12, fontWeight=600)
    )


def specification(chart: altair.TopLevelMixin) -> dict[str, Any]:
    """For vl-convert, with the look of all figures."""
    axis = {
        "domainColor": INK,
        "domainOpacity": 0.5,
        "tickColor": INK,
        "tickOpacity": 0.5,
        "gridColor": INK,
        "gridOpacity": 0.12,
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": 400,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelLimit": 190,
    }
    numbers = {"labelOverlap": "greedy", "labelSeparation": 8}
    return chart.to_dict() | {
        "background": None,
        # A browser's letters may be wider than those that the room was measured with.
        "padding": {"left": 30, "right": 20, "top": 5, "bottom": 5},
        "config": {
            "aria": False,
            "font": "sans-serif",
            "view": {"stroke": None},
            "axis": axis,
            "axisQuantitative": numbers,
            "legend": {
                "labelColor": INK,
                "titleColor": INK,
                "labelLimit": 190,
                "labelFontSize": 11,
                "columnPadding": 28,
            },
            "title": {"color": INK, "limit": 300},
            "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "labelFontWeight": 600},
            "text": {"color": INK},
            "rule": {"color": INK},
            "concat": {"spacing": 36},
        },
    }
