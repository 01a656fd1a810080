"""The site of docs/: it is built without a warning, is complete, and asks no other host for anything."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import bibench_tvm
import trainers
from bibench_tvm.__main__ import COMMANDS, app_of
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_nothing_comes_from_another_host(site: Path) -> None:
    """Links lead elsewhere; scripts, styles, pictures and fonts do not."""
    loads = re.compile(r"<(?!a\b)\w+\b[^>]*?\b(?:src|href|action)=[\"']?((?:https?:)?//[^\"' >]+)")
    imports = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert {page.name: found for page in pages if (found := loads.findall(page.read_text()))} == {}
    styles = list(site.rglob("*.css"))
    assert styles
    assert {style.name: found for style in styles if (found := imports.findall(style.read_text()))} == {}


def test_every_page_is_in_the_navigation(site: Path) -> None:
    """In the order that a newcomer needs; the first is five minutes."""
    sections = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    entries = [entry for section in sections for entry in next(iter(section.values()))]
    pages = [page for entry in entries for page in entry.values()]
    here = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages[0] == "index.md" and len(pages) == len(set(pages))
    assert set(pages) == here | {"commands.md", "readme.md", "contributing.md"}
    assert all((site / page).with_suffix(".html").exists() for page in pages)


def words_of(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """(command, spelling of an option, or what an argument is) of it and of those that it has."""
    inner = getattr(command, "commands", None)
    for word, one in (inner or {}).items():
        yield from words_of(one, f"{name} {word}")
    for one in () if inner else command.params:
        is_option = one.opts[0].startswith("-")
        yield from ((name, word) for word in ([*one.opts, *one.secondary_opts] if is_option else [one.help]))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command(site: Path, name: str) -> None:
    """In the command's own section."""
    text = text_of(site / "commands.html")
    found = list(words_of(typer.main.get_command(app_of(name)), f"bibench {name}"))
    assert len(found) > 2
    for title, words in found:
        after = rf"\n{re.escape(title)}\n(.*?)(?=\n(?:bibench|python -m) [\w. ]+\n|\Z)"
        section = re.search(after, text, re.DOTALL)
        assert section, title
        assert words in section[1], title


@pytest.mark.parametrize("package", [bibench_tvm, trainers])
def test_every_public_function(site: Path, package: Any) -> None:
    page = (site / "python.html").read_text()
    headings = " ".join(re.findall(r"<h[34][^>]*>(.*?)</h[34]>", page, re.DOTALL))
    for name in package.__all__:
        public = getattr(package, name)
        where = {f"{package.__name__}.{name}", f"{public.__module__}.{public.__qualname__}"}
        assert any(each in headings for each in where), name
