"""Tables of things known by name - algorithms, models, tasks - each filled by the files of one folder."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


def unknown_name(kind: str, name: object, known: Collection[str]) -> ValueError:
    """The error for a `name` that is not among the `known` ones of a `kind`, with the nearest that are."""
    near = difflib.get_close_matches(str(name), known, n=3)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "known are " + (", ".join(list(known)[:20]) or "none") + (", ..." if len(known) > 20 else ".")
    return ValueError(f"There is no {kind} {name!r}; {hint}")


class Registry(Generic[T]):
    """What one folder offers, by name. A file registers itself with `@registry.register("name")`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """The decorator that enters a class or function under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(
                    f"The {self.kind} {name!r} is registered twice; a name can be given only once."
                )
            self._entries[name] = entry
            return entry

        return enter

    def discover(self, package: str, path: Iterable[str]) -> None:
        """Import every file of `package`, so that adding an entry is adding a file."""
        for module in pkgutil.iter_modules(path):
            importlib.import_module(f"{package}.{module.name}")

    def forget(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[name]

    def names(self) -> list[str]:
        """The registered names in alphabetical order."""
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self.names())
        return self._entries[name]
