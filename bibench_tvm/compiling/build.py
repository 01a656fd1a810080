"""From an imported network to a library: choose the schedules, lower, generate code, link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tvm.cli.errors import BibenchError, first_line
from bibench_tvm.compiling.link import export
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.importer import Imported

if TYPE_CHECKING:
    import tvm

    from relay_passes import Lowered
    from schedules.records.kernel_task import Choose
    from schedules.records.records import Chooser


def chooser(target: CompileTarget, tuned: str | Path | None) -> Chooser:
    """The records of a folder, else those that ship for this target. Raises ValueError."""
    from schedules.records import records

    processor = target.processor
    if tuned is None:
        return records.shipped(processor, target.kernels)
    return records.tuned(Path(tuned), processor, target.kernels)


def unwatched(phase: str, module: tvm.IRModule) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Those of `relay_passes.lower`."""

    probe: bool = False
    observe: bool = False
    ranges: Mapping[str, float] | None = None
    half: bool = False
    watch: Callable[[str, tvm.IRModule], None] = unwatched


_PLAIN = BuildOptions()


def build(
    imported: Imported,
    target: CompileTarget,
    library: Path | None,
    choose: Choose,
    options: BuildOptions = _PLAIN,
) -> tuple[Lowered, tvm.IRModule]:
    """Lower, generate code and link to `library`, if there is to be one; returns what was lowered, and what
    code was made of.

    Raises BibenchError.
    """
    from relay_passes import finish, lower
    from schedules.codegen import generate_code
    from schedules.records.records import WrongRecord

    try:
        lowered = lower(imported.module, imported.layer_names, target.kernels, choose, **vars(options))
        finished = finish(lowered.module, target.tvm, target.kernels, options.watch)
        if library:
            export(generate_code(finished, target.tvm), library)
    except (BibenchError, WrongRecord):
        raise
    except Exception as error:  # TVM raises what it likes, with the whole network in its words
        raise BibenchError(
            f"The network was read, but cannot be compiled for {target.name}: {first_line(error)} That is a "
            "fault of the compiler; --debug shows where."
        ) from error
    return lowered, finished
