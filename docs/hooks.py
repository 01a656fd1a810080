"""Pages that are made when the site is built: each command's options, which the command itself says, and the
README and CONTRIBUTING, which stay where a reader of the files looks for them."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed
ELSEWHERE = {"readme.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
HEAD = """# Every command

`bibench NAME` is `python -m bibench_tvm.NAME`. This is what `--help` prints, for all of them; the page is
made of the commands themselves.
"""
BENCHMARKS = """
## benchmarks

What measures speed and makes what ships; from a checkout.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    pages = {name: (ROOT / file).read_text(encoding="utf-8") for name, file in ELSEWHERE.items()}
    for name, text in {**pages, "commands.md": commands()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Links between docs/ and what lies above it, which lie side by side on the site."""
    if page.file.src_uri in ELSEWHERE:
        return markdown.replace("](docs/", "](")
    for name, file in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{file}", f"]({name}")
    return markdown


def on_post_template(output_content: str, template_name: str, **rest: Any) -> str:
    """No page for what is not there: its links are right below the root of a host only."""
    return "" if template_name == "404.html" else output_content


def commands() -> str:
    """The page of all commands."""
    from bibench_tvm.__main__ import COMMANDS, app_of

    parts = [HEAD]
    for name in COMMANDS:
        parts += describe(f"bibench {name}", typer.main.get_command(app_of(name)), level=2)
    parts.append(BENCHMARKS)
    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        if "\napp = typer.Typer(" in file.read_text(encoding="utf-8"):
            app = importlib.import_module(f"benchmarks.{file.stem}").app
            parts += describe(f"python -m benchmarks.{file.stem}", typer.main.get_command(app), level=3)
    return "\n".join(parts)


def describe(name: str, command: Any, level: int) -> Iterator[str]:
    """A section for a command, and one for each that it has: its words, then a row for each parameter."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"{'#' * level} {name}\n\n{_plain(inspect.cleandoc(command.help or ''))}\n"
    rows = [record for record in (one.get_help_record(context) for one in command.params) if record]
    if not hasattr(command, "commands"):
        yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
        yield "| | |\n|---|---|"
        yield from (f"| `{names.replace('|', ' or ')}` | {_plain(words)} |" for names, words in rows)
        yield ""
    for word, inner in getattr(command, "commands", {}).items():
        yield from describe(f"{name} {word}", inner, level + 1)


def _plain(words: str) -> str:
    """With what Markdown or HTML would take for itself as it is."""
    for sign in "\\`*_[]<>|":
        words = words.replace(sign, f"&#{ord(sign)};")
    return words
