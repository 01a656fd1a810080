"""Which room imports which: `python -m tests.imports` prints the tree with its arrows, and fails at a circle.

A room is a folder of modules; the commands at the top of `bibench_tvm` are one. Imports within functions and
those for type checkers count too.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainers", "schedules", "relay_passes", "rpc", "bibench_tvm")


def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages; a package goes by its own name."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    names = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    return {".".join(n[:-1] if n[-1] == "__init__" else n): f for n, f in zip(names, files, strict=True)}


def imported_names(file: Path) -> set[tuple[str, str]]:
    """(module, name taken from it, or nothing) of everything that a file imports anywhere."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules among those known that a file imports anywhere."""
    names = imported_names(file)
    return {
        whole if (whole := f"{module}.{name}") in known else module for module, name in names
    } & known.keys()


def room_of(module: str, known: dict[str, Path]) -> str:
    """The folder, two levels deep at most: what is deeper is part of that room."""
    folder = module if known[module].name == "__init__.py" else module.rpartition(".")[0]
    return ".".join(folder.split(".")[:2])


def graph(known: dict[str, Path]) -> dict[str, set[str]]:
    """Room -> the other rooms that it imports."""
    found: dict[str, set[str]] = {}
    for module, file in known.items():
        room = room_of(module, known)
        arrows = found.setdefault(room, set())
        arrows |= {room_of(other, known) for other in imports(file, known)} - {room}
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A circle as its members in order, or nothing."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def circles() -> list[list[str]]:
    """A circle of rooms, and one of modules, where there are any.

    A package's own modules stand at both ends of its rooms: what all use, and what ties them together.
    """
    known = modules()
    rooms = {room: others - set(PACKAGES) for room, others in graph(known).items() if room not in PACKAGES}
    within = {module: imports(file, known) - {module} for module, file in known.items()}
    return [found for found in (circle(rooms), circle(within)) if found]


def main() -> int:
    arrows = graph(modules())
    for room in sorted(arrows):
        print(room + "".join(f"\n    -> {other}" for other in sorted(arrows[room])))
    for found in circles():
        print(f"A circle: {' -> '.join(found)}", file=sys.stderr)
    return 1 if circles() else 0


if __name__ == "__main__":
    sys.exit(main())
