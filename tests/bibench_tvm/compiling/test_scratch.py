"""No kernel of the bundled network asks the runtime for memory that the stack has."""

import re
from pathlib import Path
from typing import Any

import pytest

from bibench_tvm.compiling.build import build, chooser
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import Imported, import_model
from bibench_tvm.importer.bundled import NETWORK
from schedules import codegen


@pytest.fixture(scope="module")
def bundled() -> Imported:
    return import_model(Path(NETWORK))


@pytest.mark.parametrize("name", ["host", "arm_cpu", "rpi5", "armv7"])
def test_scratch_of_the_bundled_network(
    name: str, bundled: Imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made: list[Any] = []
    generate = codegen.generate_code
    monkeypatch.setattr(codegen, "generate_code", lambda *args: made.append(generate(*args)) or made[-1])
    target = resolve_target(name)
    build(bundled, target, tmp_path / "model.so", chooser(target, None))
    (kernels,) = made[0].mod.imports
    pattern = r"call ptr %\d+\(i32 1, i32 [^,]+, i64 (\d+), i32 2,"
    # The first layer copies the images between zeros, once for all rows.
    assert [int(size) for size in re.findall(pattern, kernels.inspect_source("ll"))] == [4 * 34 * 34]
    assert codegen.STACK_OF_BUFFER < 4 * 34 * 34
