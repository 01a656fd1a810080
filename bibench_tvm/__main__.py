"""`bibench X` is `python -m bibench_tvm.X`."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from bibench_tvm.cli.console import print_json, run_command, standard_output

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "compile": "a network in, an artifact out",
    "run": "run an artifact on this machine or on a board",
    "bench": "what a network costs on boards, and beside libraries",
    "board": "offer this machine, or an emulated one, to others",
    "tracker": "where boards register",
    "targets": "the names that --target takes, or the boards at a tracker",
    "report": "results of the tracks as one page: tables, figures, commands",
    "summary": "a network's parameters, bits and operations, without training it",
    "tracks": "the six tracks of BiBench: run, compared, beside the paper's own figures",
    "train": "train a network on a task",
    "tune": "better schedules for a network's kernels, found by trial on boards",
}


def main() -> None:
    """Import only the command that was asked for: a board lacks what the others need."""
    with standard_output():
        _run()


def _run() -> None:
    lines = [f"  {command:10}{what}" for command, what in COMMANDS.items()]
    usage = "\n".join(["Usage: bibench COMMAND ...", *lines, "bibench COMMAND --help says more."])
    match sys.argv[1:]:
        case []:
            _refuse(usage)
        case ["-h" | "--help", *_]:
            print(usage)
        case [name, *arguments] if name in COMMANDS:
            sys.argv = [f"bibench {name}", *arguments]
            run_command(app_of(name), sys.argv[0])
        case [name, *_]:
            from bibench_tvm.cli.errors import unknown

            sentence = str(unknown("command", name, COMMANDS))
            if "--json" in sys.argv:
                print_json({"error": sentence})
            _refuse(f"Error: {sentence}")


def app_of(name: str) -> typer.Typer:
    """The command of that name: a module, or a package that has it in its `__main__`."""
    module = importlib.import_module(f"bibench_tvm.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"bibench_tvm.{name}.__main__")
    return module.app


def _refuse(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
