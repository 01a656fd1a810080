"""By what a record knows the kernels that it was measured on: the digest of their code.

A record serves every network with its layer, whatever else is computed before the outputs are written. So the
code is that of a kernel which writes outputs of the same kinds, and computes nothing else.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

from schedules.records.kernel_task import KernelTask
from schedules.targets.kernel_target import Choice, KernelTarget


def digest(task: KernelTask[Any], choice: Choice, target: KernelTarget) -> str:
    """Of the code with this choice and with the default, which it was measured against; 16 hexadecimal
    digits.

    Raises ValueError for a choice that the kernel cannot have.
    """
    codes = f"{_code(task, task.default(target), target)} {_code(task, choice, target)}"
    return hashlib.sha256(codes.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def _code(task: KernelTask[Any], choice: Choice, target: KernelTarget) -> str:
    return hashlib.sha256(task.bare_kernel(choice, target).script().encode()).hexdigest()
