"""The page and the Markdown, read as a browser or a reader would: whole, offline, escaped, never empty."""

import html
import json
import re
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bibench_tvm.report.assemble import SECTIONS
from bibench_tvm.tracks.results import write
from tests.bibench_tvm.report.made import everything as all_results
from tests.bibench_tvm.report.made import layers, made

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}</svg></script>|`*\x1b[31m\u202e"


class Page(HTMLParser):
    """Refuses what is not closed in its order; keeps elements, their attributes and their texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def pictures(text: str) -> list[Xml.Element]:
    return [Xml.fromstring(found) for found in re.findall(r"<svg .*?</svg>", text, re.DOTALL)]


def has_whole_tables(markdown: str) -> None:
    """Each row of a table has as many cells as its head."""
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(tables) > 5
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def is_offline(page: Page, text: str) -> None:
    """No script, nothing that is fetched, nothing that is run."""
    names = {tag for tag, _ in page.elements}
    assert not names & {
        "script",
        "iframe",
        "object",
        "embed",
        "img",
        "image",
        "foreignobject",
        "base",
        "form",
    }
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src", "xlink:href", "action", "srcset", "style"):
            assert attributes.get(name, "#").startswith(("#", "data:,")) or name == "style", (tag, name)
    outside = set(re.findall(r"(?:https?:)?//[\w.]+", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)))
    assert outside == set()
    assert "url(" not in re.sub(r"url\(#", "", text) and "@import" not in text


def test_the_page_is_whole_and_offline(full_page: Path) -> None:
    text = text_of(full_page)
    page = Page(text)
    is_offline(page, text)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = [attributes["href"][1:] for attributes in page.all("a")]
    assert set(links) <= set(identifiers)
    contents = [section["id"] for section in page.all("section")]
    assert links[0] == "main" and links[1 : 1 + len(contents)] == contents
    assert len(contents) == len(SECTIONS) == 13
    assert all(section["tabindex"] == "-1" for section in page.all("section"))
    regions = [one for one in page.all("div") if one.get("class") == "scroll"]
    assert regions and all(one["tabindex"] == "0" and one["aria-label"] for one in regions)
    named = {attributes.get("aria-labelledby") for _, attributes in page.elements} - {None}
    assert named <= set(identifiers)


def test_every_figure_is_drawn_and_has_its_numbers(full_page: Path) -> None:
    text = text_of(full_page)
    figures = re.findall(r'<figure id="figure-([\w-]+)">(.*?)</figure>', text, re.DOTALL)
    assert [name for name, _ in figures] == [
        *("accuracy", "architecture", "corruption-1", "corruption-map-1", "paper-corruption"),
        *("training-1", "training-time", "paper-training", "complexity", "speedup", "pareto"),
        *("paper-speedup", "layers-1", "layers-2", "layers-3", "roofline"),
    ]
    for name, content in figures:
        (drawn,) = pictures(content)
        assert drawn.get("role") == "img" and drawn.get("aria-labelledby") == f"{name}-title"
        shapes = [one for one in drawn.iter() if one.tag.endswith("path") and one.get("d")]
        assert len(shapes) > 8, name
        inks = {value for one in drawn.iter() for value in (one.get("fill"), one.get("stroke")) if value}
        assert "currentColor" in inks and "#010203" not in inks and "rgb(0,0,0)" not in inks
        assert "nan" not in content.lower().replace("name", "")
        assert content.count("<tr") > 2


def test_what_the_paper_prints_is_beside_where_there_is_one(full_page: Path) -> None:
    """Of the three networks of the made results, ResNet18 on CIFAR10 alone is in the paper."""
    section = text_of(full_page).partition('<section id="learning-task"')[2].partition("</section>")[0]
    assert "An upright stroke is what the paper prints" in section
    (drawn,) = pictures(section)
    strokes = [one for one in drawn.iter() if "mark-rect" in one.get("class", "") for _ in one]
    assert len(strokes) == 9
    assert "<td>94.82</td>" in section


def test_structures_stand_beside_table_7(full_page: Path) -> None:
    section = text_of(full_page).partition('<section id="architecture"')[2].partition("</section>")[0]
    rows = re.findall(
        r'<th scope="row" class="name">\s*cnn\s*</th>\s*<td>\s*0.65\s*</td>\s*<td>\s*0.59', section
    )
    assert len(rows) == 1
    assert "is not known here" not in text_of(full_page)


def test_numbers_lead_to_their_commands(full_page: Path) -> None:
    text = text_of(full_page)
    count = sum(1 for _ in all_results())
    rows = re.findall(r'<tr id="r(\d+)">(.*?)</tr>', text, re.DOTALL)
    assert [int(number) for number, _ in rows] == list(range(1, count + 1))
    assert all("<code>python -m bibench_tvm.train --task" in row for _, row in rows)
    used = {int(number) for number in re.findall(r'href="#r(\d+)"', text)}
    assert len(used) > 0.9 * count


def test_what_is_no_measurement_is_said_first(full_page: Path) -> None:
    before = text_of(full_page).partition("<nav")[0]
    for words in ("of stand-ins", "of emulated boards", "computed by a model", "of the open division"):
        assert words in before
    assert "8 binarization algorithms (BNN, XNOR, DoReFa, Bi-Real, XNOR++, ReActNet, ReCU, FDA)" in before
    assert "A processor, 4 cores" in before


def test_the_summary_is_that_of_tracks_table(full_page: Path, everything: Path) -> None:
    from bibench_tvm.tracks.overall import overall
    from bibench_tvm.tracks.results import read_all

    found = [result for result in read_all(everything)[0] if result.key.track != "inference"]
    summary = text_of(full_page).partition('<section id="summary"')[2].partition("</section>")[0]
    for row in overall(found):
        for metric in (row.overall, *row.parts.values()):
            if metric.value is not None:
                assert f"{metric.value:.2f}" in summary, row
    assert summary.count('class="best"') == summary.count('class="worst"') > 10
    assert ">94.54<" in summary  # of BNN on CIFAR10, in table 2 of the paper


def test_nothing_measured(tmp_path: Path, write_report: Callable[..., Any]) -> None:
    found = write_report(tmp_path, "--out", tmp_path / "report.html")
    assert (found["results"], found["figures"], len(found["empty"])) == (0, [], len(SECTIONS))
    text = text_of(tmp_path / "report.html")
    page = Page(text)
    is_offline(page, text)
    assert "There are no results in this folder yet." in text and "<svg" not in text
    lines = re.findall(r'class="empty">.*?<code>(.*?)</code>', text, re.DOTALL)
    assert len(lines) == len(SECTIONS)
    assert all(line.startswith(f"python -m bibench_tvm.tracks run {tmp_path} ") for line in lines)


def hostile() -> list[Any]:
    found = []
    for track, figures in (
        ("learning_task", {"accuracy": (0.5, "1", "measured"), "train_seconds": (1.0, "s", "measured")}),
        ("architecture", {"accuracy": (0.5, "1", "measured")}),
        (
            "corruption",
            {f"{HOSTILE}/1: accuracy": (0.5, "1", "measured"), "accuracy": (0.4, "1", "measured")},
        ),
        ("training", {"accuracy": (0.5, "1", "measured")}),
        ("complexity", {"compression": (2.0, "1", "model"), "speedup": (2.0, "1", "model")}),
        ("inference", {"latency": (0.5, "s", "measured"), "size": (5.0, "B", "measured")}),
    ):
        for algorithm in ("fp32", HOSTILE):
            result = made(
                *(track, HOSTILE, HOSTILE, algorithm, figures),
                variant=HOSTILE,
                profile=HOSTILE,
                settings={HOSTILE: HOSTILE, "lr": HOSTILE},
                corruption=HOSTILE,
                device=HOSTILE,
                threads=1,
                library=HOSTILE,
                seed=0,
                layers=[
                    msgspec.structs.replace(one, name=HOSTILE, reason=HOSTILE, alone={HOSTILE: 1.0})
                    for one in layers(1.0)
                ],
                machine={"processor": HOSTILE, "cores": 2, "binary_products_per_s": 10**12},
            )
            found.append(msgspec.structs.replace(result, command=[HOSTILE], commit=HOSTILE, ended=HOSTILE))
    return found


def test_names_are_text_whatever_they_hold(tmp_path: Path, write_report: Callable[..., Any]) -> None:
    for result in hostile():
        write(tmp_path, result)
    found = write_report(tmp_path, "--out", tmp_path / "report.html")
    assert len(found["figures"]) >= 7
    text = text_of(tmp_path / "report.html")
    page = Page(text)
    is_offline(page, text)
    assert "&lt;img src=x onerror=alert(1)&gt;" in text and "{{ 7*7 }}" in text
    assert not set(re.findall(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", text))
    assert all(len(list(drawn.iter())) > 20 for drawn in pictures(text))
    write_report(tmp_path, "--out", tmp_path / "report.md")
    plain = (tmp_path / "report.md").read_text()
    has_whole_tables(plain)
    assert "<img" not in plain and "</script>" not in plain and html.escape("<img", quote=False) in plain


def test_what_is_no_result_is_named_and_left_out(tmp_path: Path, write_report: Callable[..., Any]) -> None:
    good = made("learning_task", "fashion_mnist", "resnet18", "fp32", {"accuracy": (0.9, "1", "measured")})
    bad = made("learning_task", "fashion_mnist", "resnet18", "bnn", {"accuracy": (0.8, "1", "measured")})
    path = write(tmp_path, good)
    write(tmp_path, bad).write_bytes(b'{"key": 1')
    path.with_name("elsewhere.json").write_bytes(path.read_bytes())
    newer = json.loads(path.read_text()) | {"schema_version": 9}
    path.with_name("newer.json").write_text(json.dumps(newer))
    found = write_report(tmp_path, "--out", tmp_path / "report.html", code=1)
    assert found["results"] == 1 and len(found["left_out"]) == 3
    before = text_of(tmp_path / "report.html").partition("<nav")[0]
    assert before.count("Left out or incomplete") == 3
    assert "is no result" in before and "of version 9" in before and "that belongs into" in before


@pytest.mark.parametrize("value", [1e300, -1e300, 1e-300, 5e-324])
def test_numbers_of_no_measurement(tmp_path: Path, write_report: Callable[..., Any], value: float) -> None:
    good = layers(1.0)[0]
    write(tmp_path, made("inference", "t", "a", "bnn", {"latency": (value, "s", "measured")}))
    for name in ("cost", "alone"):
        strange = msgspec.structs.replace(good, **{name: {"x": value} if name == "alone" else value})
        figures: Any = {"latency": (1.0, "s", "measured")}
        write(tmp_path, made("inference", "t", name, "bnn", figures, layers=[strange]))
    found = write_report(tmp_path, "--out", tmp_path / "report.html", code=1)
    assert found["results"] == 0 and len(found["left_out"]) == 3


@pytest.mark.parametrize("value", [0.0, -1.0, 1e18, 1e-18])
def test_numbers_at_the_edge(tmp_path: Path, write_report: Callable[..., Any], value: float) -> None:
    """Nothing fails on them, and what cannot be drawn is not."""
    odd = [msgspec.structs.replace(one, cost=value, macs=round(value), bytes=0) for one in layers(1.0)]
    for place, algorithm in enumerate(("fp32", "bnn", "fda")):
        for track, figures in (
            (
                "learning_task",
                {"accuracy": (value, "1", "measured"), "train_seconds": (value, "s", "measured")},
            ),
            ("corruption", {"fog/1: accuracy": (value, "1", "measured")}),
            ("training", {"accuracy": (value if place < 2 else 0.5, "1", "measured")}),
            ("complexity", {"compression": (value, "1", "model")}),
            ("inference", {"latency": (value, "s", "measured")}),
        ):
            more = {"corruption": "standin_corruptions"} if track == "corruption" else {}
            result = made(track, "fashion_mnist", "a", algorithm, figures, layers=odd, seed=0, **more)  # type: ignore[arg-type]
            write(tmp_path, result)
    found = write_report(tmp_path, "--out", tmp_path / "report.html")
    assert (
        found["results"] == 15
        and found["left_out"] == found["faults"] == []
        and "accuracy" in found["figures"]
    )
    text = text_of(tmp_path / "report.html")
    assert not re.search(r"\b(nan|inf|Infinity|NaN)\b", text)


def test_mixed_origins_are_said(tmp_path: Path, write_report: Callable[..., Any]) -> None:
    one = made("learning_task", "fashion_mnist", "resnet18", "fp32", {"accuracy": (0.9, "1", "measured")})
    write(tmp_path, one)
    other = msgspec.structs.replace(
        one,
        key=msgspec.structs.replace(one.key, algorithm="bnn"),
        versions={"torch": "9.9"},
        commit="b" * 40,
        machine={"processor": "Another"},
    )
    write_report(tmp_path, "--out", tmp_path / "report.html")
    before = text_of(tmp_path / "report.html").partition("<nav")[0]
    assert "different" not in before
    write(tmp_path, other)
    write_report(tmp_path, "--out", tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    for words in ("different versions", "different commits", "different machines"):
        assert words in text.partition("<nav")[0]
    machines = text.partition('<section id="machines"')[2]
    assert "torch 9.9" in machines and "torch 2.13.0" in machines and "bbbbbbbbbbbb" in machines


def test_a_task_that_is_not_known_here(tmp_path: Path, write_report: Callable[..., Any]) -> None:
    for algorithm in ("fp32", "bnn"):
        write(tmp_path, made("learning_task", "mine", "net", algorithm, {"f1": (0.5, "1", "measured")}))
    found = write_report(tmp_path, "--out", tmp_path / "report.html")
    assert "accuracy" in found["figures"]
    assert "There is no binarized network to compare" in text_of(tmp_path / "report.html")


def test_markdown_and_pictures(everything: Path, tmp_path: Path, write_report: Callable[..., Any]) -> None:
    out, folder = tmp_path / "report.md", tmp_path / "pictures"
    found = write_report(everything, "--out", out, "--figures", folder)
    assert {path.name for path in folder.iterdir()} == {
        f"{name}{suffix}" for name in found["figures"] for suffix in (".svg", ".png")
    }
    for path in folder.iterdir():
        if path.suffix == ".svg":
            assert Xml.fromstring(path.read_text()).get("viewBox")
        else:
            assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000
    text = out.read_text()
    assert text.count("## ") == len(SECTIONS)
    assert [f"pictures/{name}.svg" for name in found["figures"]] == re.findall(r"\]\(<(.*?)>\)", text)
    has_whole_tables(text)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["/nowhere"], 1, "There is no folder /nowhere."),
        ([".", "--out", "report.pdf"], 2, "should end in .html or .md"),
        ([".", "--out", "no/such/report.html"], 2, "There is no folder "),
    ],
)
def test_failures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_report: Callable[..., Any],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in write_report(*arguments, code=code)["error"]
    assert not list(tmp_path.iterdir())
