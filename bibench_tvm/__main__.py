"""`bibench X` is `python -m bibench_tvm.X`."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "compile": "a network in, an artifact out",
    "run": "run an artifact on this machine",
    "targets": "the names that --target takes",
    "train": "train a network on a task",
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
            importlib.import_module(f"bibench_tvm.{name}").app()
        case [name, *_]:
            from bibench_tvm.errors import unknown

            _refuse(f"Error: {unknown('command', name, COMMANDS)}")


def _refuse(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
