"""What README.md and docs/ tell a reader to type, read from their Markdown."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from bibench_tvm.__main__ import COMMANDS, app_of

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*"
    r"(?:\.venv/bin/)?"
    r"(?:bibench|python|pytest|pip|mkdocs|ssh|scp|rsync|cc|adb|sudo|\.|\.?/?[\w./-]+\.sh|\./\w+) "
)
INDENT = "    "


@dataclass(frozen=True)
class Step:
    """A heading; a command line; Python; or a block of something else, such as the content of a file."""

    kind: Literal["heading", "command", "python", "text"]
    text: str


def steps(page: str) -> list[Step]:
    """Of a page, in its order."""
    found = []
    for language, block in _blocks((ROOT / page).read_text()):
        commands = re.sub(r"\\\n\s*", "", block).splitlines()
        if language == "heading":
            found.append(Step("heading", block))
        elif language == "python":
            found.append(Step("python", block))
        elif language in ("bash", "sh") or (language == "indented" and is_command(commands[0])):
            lines = [re.sub(r"\s+#\s.*", "", line) for line in commands]
            found += [Step("command", line) for line in lines if line]
        else:
            found.append(Step("text", block))
    return found


def in_sentences(page: str) -> list[str]:
    """The commands with arguments that a page names between backticks."""
    text = re.sub(r"^```.*?^```|^    .*?$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    named = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))
    return [line for line in named if " " in line and is_command(line)]


def is_command(line: str) -> bool:
    return bool(PROGRAM.match(line + " "))


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of each block of code; a block that is indented says so, and so does a heading."""
    lines = iter([*text.splitlines(), ""])
    indented: list[str] = []
    before = ""
    for line in lines:
        if line.startswith(INDENT) and (indented or not before):
            indented.append(line.removeprefix(INDENT))
        elif indented and line:
            yield "indented", "\n".join(indented).rstrip()
            indented = []
        elif indented:
            indented.append("")
        if line.startswith("```"):
            content = []
            for inner in lines:
                if inner.startswith("```"):
                    break
                content.append(inner)
            yield line.removeprefix("```").strip(), "\n".join(content)
        elif line.startswith("#"):
            yield "heading", line.lstrip("# ")
        before = line
    if any(indented):
        yield "indented", "\n".join(indented).rstrip()


def parts(line: str) -> list[str]:
    """The commands of a line that `&&` joins, each without the `&` that leaves it running."""
    return [part.removesuffix("&").strip() for part in re.split(r"\s+&&\s+", line)]


def ours(words: list[str]) -> tuple[str, typer.Typer, list[str]] | None:
    """(name, command, arguments) where the words call a command of this project."""
    words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    match words:
        case ["bibench", name, *arguments] if name in COMMANDS:
            return name, app_of(name), arguments
        case ["python", "-m", module, *arguments] if module.startswith("bibench_tvm."):
            name = module.removeprefix("bibench_tvm.")
            return name, app_of(name), arguments
        case ["python", "-m", module, *arguments] if module.startswith("benchmarks."):
            return module, importlib.import_module(module).app, arguments
    return None


def parse(line: str, config: Any, *, whole: bool = True) -> None:
    """Let the command's own parser read the line, and do no more.

    whole: it is to be complete; else what is required may be missing, as in a sentence about an option.
    config: pytest's, which knows the options of this suite.

    Raises:
        Exception: as the parser does; AssertionError for a line of a program that is not known here.
    """
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if found := ours(words):
        name, app, arguments = found
        command = typer.main.get_command(app)
        while inner := getattr(command, "commands", None):
            assert arguments and arguments[0] in inner, f"{name} has no command {arguments[:1]}"
            name, command, arguments = arguments[0], inner[arguments[0]], arguments[1:]
        try:
            command.make_context(name, list(arguments))
        except Exception as error:
            if whole or type(error).__name__ != "MissingParameter":
                raise
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {*project["optional-dependencies"], "data"}
    match words:
        case ["./install.sh", *given]:
            assert len(given) < 2 and {*",".join(given).split(",")} - {""} <= extras, line
        case ["pip", "install", package, *_] if package.startswith(project["name"]):
            assert {*re.findall(r"\[(\w+)\]", package)} <= extras, line
        case ["pytest", path, *options]:
            assert (ROOT / path).is_file(), line
            for option in options[::2]:
                config.getoption(option)
        case ["python", path, *_] if path.endswith(".py"):
            assert (ROOT / path).is_file(), line
        case [script, *_] if script.endswith(".sh"):
            assert (ROOT / script).is_file(), line
        case [program, *_]:
            assert program in (".", "ssh", "scp", "cc", "./example", "pip", "mkdocs"), (
                f"{line}: no test knows {program}"
            )
