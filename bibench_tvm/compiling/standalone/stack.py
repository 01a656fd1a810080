"""How deep the stack gets: LLVM says how large the frame of each function is, and its text who calls whom.

A function with `WARN` among its attributes has LLVM say the size of its frame when it is translated.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

WARN = '"warn-stack-size"="0"'
_SAID = re.compile(r"stack frame size \((\d+)\) exceeds limit \(0\) in function '([^']+)'")
_FUNCTION = re.compile(r'^define [^\n]*?@"?([\w.$]+)"?\(.*?^\}$', re.M | re.S)
_CALL = re.compile(r'\bcall [^\n]*?@"?([\w.$]+)"?\(')
# What a pool is given to call.
_TASK = re.compile(r"\bcall void %run\(ptr %self, ptr @([\w.$]+),")
_ALIGNED = re.compile(r"\balloca [^\n]*align (\d+)")
# What the stack of every target has by itself, at the least; a frame that needs more may lose as much again.
_ALIGNMENT = 8


def frame_sizes(said: str) -> dict[str, int]:
    """Function -> bytes, of those that have a frame. said: by LLVM, on standard error."""
    return {name: int(size) for size, name in _SAID.findall(said)}


def depth(text: str, frames: dict[str, int], name: str, pointer: int, unwritten: Collection[str] = ()) -> int:
    """The most bytes of stack that a call of `<name>_run` takes, or one of `<name>_run_threads`, which has a
    pool call steps, perhaps on the same stack.

    text: of LLVM; frames: as `frame_sizes` gives them; pointer: bytes of an address, of which a call may put
    one on the stack; unwritten: functions that LLVM may call anywhere, with no word of it in the text.
    Functions that the text only declares, such as memcpy, are not counted.
    """
    bodies = {found[1]: found[0] for found in _FUNCTION.finditer(text)}

    @functools.cache
    def below(function: str) -> int:
        body = bodies.get(function)
        if body is None:
            return 0
        called = _CALL.findall(body) + _TASK.findall(body)
        most = max((int(align) for align in _ALIGNED.findall(body)), default=0)
        own = pointer + frames.get(function, 0) + (most if most > _ALIGNMENT else 0)
        return own + max((below(other) for other in called), default=0)

    deepest = max(below(f"{name}_run"), below(f"{name}_run_threads"))
    return deepest + max(map(below, unwritten), default=0)
