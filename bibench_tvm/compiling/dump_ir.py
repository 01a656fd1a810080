"""The module after each phase of the compiler, for people: `compile --dump-ir DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tvm.cli.errors import UsageError

if TYPE_CHECKING:
    import tvm


class Dump:
    """Called with each phase and its module, writes `01_mark_layers.txt` and so on to a folder."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0

    def __call__(self, phase: str, module: tvm.IRModule) -> None:
        self.count += 1
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # show_meta off: the constants are as large as the network.
            text = module.script(show_meta=False)
            (self.folder / f"{self.count:02}_{phase}.txt").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be written: {error.strerror or error}.") from error
