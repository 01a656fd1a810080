"""`bibench X` is `python -m bibench_tvm.X`."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "compile": "a network in, an artifact out",
    "run": "run an artifact on this machine or on a board",
    "bench": "what a network costs on boards, and beside libraries",
    "board": "offer this machine, or an emulated one, to others",
    "tracker": "where boards register",
    "targets": "the names that --target takes, or the boards at a tracker",
    "train": "train a network on a task",
    "tune": "better schedules for a network's kernels, found by trial on boards",
}


def main() -> None:
    """Import only the command that was asked for: a board lacks what the others need."""
    lines = [f"  {command:10}{what}" for command, what in COMMANDS.items()]
    usage = "\n".join(["Usage: bibench COMMAND ...", *lines, "bibench COMMAND --help says more."])
    match sys.argv[1:]:
        case []:
            _refuse(usage)
        case ["-h" | "--help", *_]:
            print(usage)
        case [name, *arguments] if name in COMMANDS:
            sys.argv = [f"bibench {name}", *arguments]
            from bibench_tvm.cli.console import run_command

            run_command(importlib.import_module(f"bibench_tvm.{name}").app, sys.argv[0])
        case [name, *_]:
            from bibench_tvm.cli.console import print_json
            from bibench_tvm.cli.errors import unknown

            sentence = str(unknown("command", name, COMMANDS))
            if "--json" in sys.argv:
                print_json({"error": sentence})
            _refuse(f"Error: {sentence}")


def _refuse(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
