"""A finished network -> `lib<name>.a`, `lib<name>.so` where there is a loader, and what C has to know of it.

`<name>_run` calls one kernel after another. LLVM must not optimise it together with the kernels: where it
inlines them, it takes places in the workspace that they share for distinct ones. So the kernels are optimised
by themselves, the calls are added to their text, and that is translated as it stands.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bibench_tvm.artifact.manifest import Standalone, Tensor
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.compiling.link import archive, assemble, link_library
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.compiling.standalone import stack, texts
from bibench_tvm.compiling.standalone.elf import Elf
from bibench_tvm.compiling.standalone.helpers import helpers_for
from rpc.emulation.c_network import CNetwork

if TYPE_CHECKING:
    import tvm

    from relay_passes.flatten import Flat, Place, TensorType
    from schedules.c_functions import Functions

DEFAULT_NAME = "model"
_ATTRIBUTES = f"nounwind {stack.WARN}"
_LONGEST_NAME = 60
# What comes with every C compiler: on 32-bit Arm also what its processors have no instruction for.
_FROM_C = re.compile(r"mem(cpy|set|move)|__aeabi_\w+")
_FROM_LIBM = re.compile(
    r"(a?(sin|cos|tan)h?|atan2|exp(2|10|m1)?|log(2|10|1p)?|pow|sqrt|cbrt|erfc?|fmod|hypot|[lt]gamma|floor"
    r"|ceil|round(even)?|trunc|rint|nearbyint|fabs|copysign|fma|fmin|fmax|ldexp|nextafter|remainder)f?"
)


@dataclass(frozen=True)
class CLibrary:
    """What was made in `folder`, and the network's outputs."""

    folder: Path
    record: Standalone
    outputs: tuple[Tensor, ...]

    @property
    def network(self) -> CNetwork:
        name = self.record.name
        outputs = [np.zeros(tensor.shape, tensor.dtype) for tensor in self.outputs]
        return CNetwork(self.folder / f"lib{name}.a", self.folder / f"{name}.h", name, outputs)


def c_identifier(name: str) -> str:
    """What C names begin with for this one: ResNet-20 -> ResNet_20. Raises UsageError where nothing fits."""
    found = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    if not re.match("[A-Za-z]", found) or len(found) > _LONGEST_NAME:
        raise UsageError(
            f"The functions of a library for C cannot be called after the name {name!r}: they take a letter "
            f"first, and at most {_LONGEST_NAME} letters, digits and underscores. Give another --name."
        )
    return found


def make_standalone(
    finished: tvm.IRModule,
    target: CompileTarget,
    name: str,
    folder: Path,
    *,
    title: str = "",
    inputs: Sequence[Tensor] = (),
    outputs: Sequence[Tensor] = (),
) -> CLibrary:
    """Make `folder`, with the library and what belongs to it.

    name: a C identifier. title, inputs and outputs: what the network and its tensors are called, for people;
    a probe has more outputs than these. Raises BibenchError, also where the network needs TVM's runtime.
    """
    from relay_passes.flatten import ALIGNMENT, NotFlat, flatten
    from schedules.c_functions import generate_functions

    try:
        flat = flatten(finished)
    except NotFlat as error:
        raise _needs(f"the operator {str(error).removeprefix('relax.')}") from error
    functions = generate_functions(finished, target.tvm, name, stack.WARN)
    if called := re.search(r"@_*(TVM\w+)", functions.text):
        raise _needs(called[1])
    tensors_in, tensors_out = _named("input", flat.inputs, inputs), _named("output", flat.outputs, outputs)
    about: dict[str, Any] = {
        "network": title or name,
        "target": target.name,
        "inputs": msgspec.to_builtins(tensors_in),
        "outputs": msgspec.to_builtins(tensors_out),
        "workspace_bytes": flat.workspace + functions.scratch + functions.own or ALIGNMENT,
        "thread_bytes": functions.own,
    }
    about["checksum"] = _checksum(flat, functions.text, about)
    calls = _calls(flat, functions, name, json.dumps(about))
    try:
        folder.mkdir()
        text, made = folder / f"{name}.ll", folder / f"{name}.o"
        code = functions.text + calls
        text.write_text(code)
        frames = stack.frame_sizes(assemble(text, made))
        elf = Elf(made.read_bytes())
        undefined = elf.undefined
        if helpers := helpers_for(undefined, code, _ATTRIBUTES):
            code += helpers
            text.write_text(code)
            frames = stack.frame_sizes(assemble(text, made))
            elf = Elf(made.read_bytes())
        deepest = stack.depth(code, frames, name, elf.pointer_bytes, undefined)
        _check(elf)
        libraries = [folder / f"lib{name}.a"]
        archive(libraries[0], made)
        if not target.bare:
            libraries.append(folder / f"lib{name}.so")
            link_library(libraries[1], made)
        for scrap in text, made:
            scrap.unlink()
        needs_libm = any(_FROM_LIBM.fullmatch(symbol) for symbol in elf.undefined)
        written = texts.write(
            folder,
            name=name,
            title=title or name,
            target=target,
            inputs=tensors_in,
            outputs=tensors_out,
            workspace=about["workspace_bytes"],
            own=functions.own,
            stack=deepest,
            alignment=ALIGNMENT,
            checksum=about["checksum"],
            needs_libm=needs_libm,
            unchecked=flat.unchecked,
        )
    except OSError as error:
        raise BibenchError(f"{folder.parent} cannot be written: {error.strerror or error}.") from error
    files = [*(library.name for library in libraries), *written]
    record = Standalone(
        name=name,
        files={file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files},
        workspace_bytes=about["workspace_bytes"],
        thread_bytes=functions.own,
        stack_bytes=deepest,
        alignment=ALIGNMENT,
        code_and_constants=elf.loaded_bytes,
        undefined_symbols=elf.undefined,
        checksum=about["checksum"],
    )
    return CLibrary(folder, record, tuple(tensors_out))


def _needs(what: str) -> BibenchError:
    return BibenchError(
        f"The network cannot be a library without TVM: it needs {what} of TVM's runtime. Compile it without "
        "--standalone, or leave that operator out."
    )


def _named(kind: str, types: Sequence[TensorType], named: Sequence[Tensor]) -> list[Tensor]:
    names = [tensor.name for tensor in named] + [f"{kind}{i}" for i in range(len(named), len(types))]
    described = [
        {"name": name, "shape": tensor.shape, "dtype": tensor.dtype}
        for name, tensor in zip(names, types, strict=True)
    ]
    return msgspec.convert(described, list[Tensor])


def _checksum(flat: Flat, kernels: str, about: dict[str, Any]) -> str:
    """Of all that makes the library; LLVM's notes, which begin with !, have addresses of this process."""
    found = hashlib.sha256(json.dumps(about).encode())
    found.update(repr(flat.calls).encode() + flat.constants)
    found.update(re.sub(r"^!.*$", "", kernels, flags=re.M).encode())
    return found.hexdigest()


def _check(elf: Elf) -> None:
    strange = [s for s in elf.undefined if not _FROM_C.fullmatch(s) and not _FROM_LIBM.fullmatch(s)]
    if strange:
        raise BibenchError(
            f"The network cannot be a library without TVM: it calls {', '.join(strange)}, and neither C's "
            "library has that nor this compiler. Compile it without --standalone, or leave that operator out."
        )
    if elf.writable:
        raise BibenchError(
            f"The library would have writable data ({', '.join(elf.writable)}), a fault of the compiler."
        )


def _calls(flat: Flat, functions: Functions, name: str, about: str) -> str:
    """`<name>_run`, `<name>_run_threads` and `<name>_info` in LLVM's text.

    Each step of a kernel is called by a function `step(void *data, int task, int tasks)`, which a pool can
    call too; `data` is an array of the addresses of inputs, outputs and workspace.
    """
    from relay_passes.flatten import ALIGNMENT

    counts = {"input": len(flat.inputs), "output": len(flat.outputs)}
    given = [*(f"{kind}{i}" for kind, count in counts.items() for i in range(count)), "workspace"]
    texts: list[str] = []
    steps: list[tuple[str, bool]] = []
    for call in flat.calls:
        for step in functions.steps[call.kernel]:
            steps.append((f"{name}_step{len(steps)}", step.parallel))
            texts.append(_step(flat, functions, name, steps[-1][0], step.symbol, call.places, given))
    stored = "".join(
        f"  %data{i} = getelementptr ptr, ptr %data, i32 {i}\n  store ptr %{tensor}, ptr %data{i}\n"
        for i, tensor in enumerate(given)
    )
    begin = f"""
  %address = ptrtoint ptr %workspace to i32
  %beyond = and i32 %address, {ALIGNMENT - 1}
  %wrong = icmp ne i32 %beyond, 0
  br i1 %wrong, label %refuse, label %compute
refuse:
  ret i32 1
compute:
  %data = alloca [{len(given)} x ptr]
{stored}"""
    parameters = ", ".join(f"ptr %{tensor}" for tensor in given)
    attributes = _ATTRIBUTES
    serial = "".join(f"  call void @{step}(ptr %data, i32 0, i32 1)\n" for step, _ in steps)
    threads = "".join(
        f"  call void %run(ptr %self, ptr @{step}, ptr %data, i32 %tasks)\n"
        if parallel
        else f"  call void @{step}(ptr %data, i32 0, i32 1)\n"
        for step, parallel in steps
    )
    constants = flat.constants or bytes(1)
    return f"""
@{name}_constants = internal constant [{len(constants)} x i8] c"{_quoted(constants)}", align {ALIGNMENT}
@{name}_about = internal constant [{len(about) + 1} x i8] c"{_quoted(about.encode())}\\00"
{"".join(texts)}
define i32 @{name}_run({parameters}) {attributes} {{{begin}{serial}  ret i32 0
}}

define i32 @{name}_run_threads({parameters}, ptr %pool) {attributes} {{{begin}  %run = load ptr, ptr %pool
  %pool.self = getelementptr {{ ptr, ptr, i32 }}, ptr %pool, i32 0, i32 1
  %self = load ptr, ptr %pool.self
  %pool.threads = getelementptr {{ ptr, ptr, i32 }}, ptr %pool, i32 0, i32 2
  %tasks = load i32, ptr %pool.threads
{threads}  ret i32 0
}}

define ptr @{name}_info() {attributes} {{
  ret ptr @{name}_about
}}
"""


def _step(
    flat: Flat,
    functions: Functions,
    name: str,
    step: str,
    kernel: str,
    places: Sequence[Place],
    given: Sequence[str],
) -> str:
    lines = [
        line
        for i, tensor in enumerate(given)
        for line in (f"%at{i} = getelementptr ptr, ptr %data, i32 {i}", f"%{tensor} = load ptr, ptr %at{i}")
    ]
    arguments: list[str] = []
    for i, place in enumerate(places):
        shared = {"constants": f"@{name}_constants", "workspace": "%workspace"}
        start = shared.get(place.memory) or f"%{place.memory}{place.index}"
        lines.append(f"%place{i} = getelementptr i8, ptr {start}, i32 {place.offset}")
        arguments.append(f"ptr %place{i}")
    lines += [
        f"%scratch = getelementptr i8, ptr %workspace, i32 {flat.workspace}",
        f"%share = mul i32 %task, {functions.own}",
        f"%start = add i32 %share, {flat.workspace + functions.scratch}",
        "%own = getelementptr i8, ptr %workspace, i32 %start",
        f"call i32 @{kernel}({', '.join(arguments)}, ptr %scratch, ptr %own, i32 %task, i32 %tasks)",
        "ret void",
    ]
    body = "".join(f"  {line}\n" for line in lines)
    return f"\ndefine internal void @{step}(ptr %data, i32 %task, i32 %tasks) {_ATTRIBUTES} {{\n{body}}}\n"


_QUOTED = [f"\\{byte:02X}" for byte in range(256)]


def _quoted(content: bytes) -> str:
    return "".join(map(_QUOTED.__getitem__, content))
