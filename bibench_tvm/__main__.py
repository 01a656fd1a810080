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
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        lines = [f"  {command:10}{what}" for command, what in COMMANDS.items()]
        print("\n".join(["usage: bibench COMMAND ...", *lines]), file=sys.stderr)
        return
    if name not in COMMANDS:
        from bibench_tvm.errors import unknown

        print(f"Error: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"bibench {name}", *sys.argv[2:]]
    importlib.import_module(f"bibench_tvm.{name}").app()


if __name__ == "__main__":
    main()
