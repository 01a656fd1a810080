"""What an ELF object takes from others, and what it has: read from its own tables."""

from __future__ import annotations

import struct
from functools import cached_property

_WRITE, _ALLOC, _EXECUTE = 1, 2, 4
_SYMBOLS, _NO_BITS = 2, 8
_GLOBAL = 1


class Elf:
    """A little-endian object file of 32 or 64 bits, as LLVM writes them for our targets."""

    def __init__(self, content: bytes):
        if content[:4] != b"\x7fELF" or content[5] != 1:
            raise ValueError("This is no little-endian ELF file.")
        self._content = content
        self._wide = content[4] == 2
        header = struct.unpack_from("<16x2HI3QI6H" if self._wide else "<16x2HI3II6H", content)
        start, size, count, names = header[5], *header[10:13]
        layout = "<2I4Q2I2Q" if self._wide else "<10I"
        # (name, type, flags, address, offset, size, link, info, alignment, size of an entry)
        self._sections = [struct.unpack_from(layout, content, start + size * i) for i in range(count)]
        self._names = self._sections[names][4]

    @property
    def writable(self) -> tuple[str, ...]:
        """The sections that would be in writable memory and have something in them."""
        return tuple(
            self._text(self._names + name)
            for name, _, flags, _, _, size, *_ in self._sections
            if flags & _ALLOC and flags & _WRITE and size
        )

    @property
    def pointer_bytes(self) -> int:
        return 8 if self._wide else 4

    @property
    def loaded_bytes(self) -> int:
        """Code and constants."""
        return sum(s[5] for s in self._sections if s[2] & _ALLOC and s[1] != _NO_BITS)

    @property
    def executable_bytes(self) -> int:
        """Code."""
        return sum(s[5] for s in self._sections if s[2] & _EXECUTE)

    @cached_property
    def undefined(self) -> tuple[str, ...]:
        """The names that another object has to have."""
        return tuple(sorted(name for name, _, section in self._symbols if name and not section))

    @cached_property
    def defined(self) -> tuple[str, ...]:
        """The names that other objects see."""
        seen = (name for name, binding, section in self._symbols if binding >= _GLOBAL and section)
        return tuple(sorted(seen))

    @property
    def _symbols(self) -> list[tuple[str, int, int]]:
        """(name, binding, section; 0 for none)"""
        found = []
        for _, kind, _, _, offset, size, link, *_, entry in self._sections:
            if kind != _SYMBOLS:
                continue
            strings = self._sections[link][4]
            for start in range(offset, offset + size, entry):
                if self._wide:
                    name, info, _, section = struct.unpack_from("<I2BH", self._content, start)
                else:
                    name, info, _, section = struct.unpack_from("<I8x2BH", self._content, start)
                found.append((self._text(strings + name), info >> 4, section))
        return found

    def _text(self, start: int) -> str:
        return self._content[start : self._content.index(0, start)].decode()
