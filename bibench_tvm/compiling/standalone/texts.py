"""What lies beside the library: the header, an example, a CMake file and the licences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from bibench_tvm.artifact.manifest import Tensor
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.compiling.standalone.pool import pool_files

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "uint16_t",  # C has no name for it that all compilers know
    "bool": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_MEANINGS = {"float16": ", the bits of a float16", "bool": ", 0 or 1"}
_PRINTED = {
    "float32": '"%.9g\\n", (double)',
    "float64": '"%.17g\\n", ',
    "uint64": '"%llu\\n", (unsigned long long)',
}


def write(
    folder: Path,
    *,
    name: str,
    title: str,
    target: CompileTarget,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    workspace: int,
    own: int,
    stack: int,
    alignment: int,
    checksum: str,
    needs_libm: bool,
    unchecked: Sequence[str] = (),
) -> list[str]:
    """Write the files, and give their names. unchecked: what the network asks of its values, in words."""
    tensors = [(f"input{i}", tensor) for i, tensor in enumerate(inputs)]
    tensors += [(f"output{i}", tensor) for i, tensor in enumerate(outputs)]
    libraries = "m" if needs_libm and not target.bare else ""
    files = {
        f"{name}.h": _header(
            name, title, target, tensors, workspace, own, stack, alignment, checksum, unchecked
        ),
        "example.c": _example(name, tensors),
        "CMakeLists.txt": _cmake(name, libraries, target.bare),
        "LICENSES.txt": _licences(),
        **({} if target.bare else pool_files(name)),
    }
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return list(files)


def _header(
    name: str,
    title: str,
    target: CompileTarget,
    tensors: Sequence[tuple[str, Tensor]],
    workspace: int,
    own: int,
    stack: int,
    alignment: int,
    checksum: str,
    unchecked: Sequence[str],
) -> str:
    asked = "".join(
        f" *\n * Not checked here, but by the source network: {_comment(said)}\n" for said in unchecked
    )
    macro = name.upper()
    parameters = [f"{_const(place)}{_C_TYPES[tensor.dtype]} *{place}" for place, tensor in tensors]
    described = "".join(
        f" *   {place}: {_comment(tensor.name)}, {_C_TYPES[tensor.dtype]}"
        f"{''.join(f'[{extent}]' for extent in tensor.shape) or ', one'}"
        f"{_MEANINGS.get(tensor.dtype, '')}\n"
        for place, tensor in tensors
    )
    counts = "".join(
        f"#define {macro}_{place.upper()}_COUNT {math.prod(tensor.shape)}\n" for place, tensor in tensors
    )
    return f"""\
/* The network {_comment(title)}, compiled for {_comment(target.name)} ({target.triple}, {target.cpu}).
 *
 * {name}_run computes all outputs from all inputs:
{described} *
 * Tensors are dense, the last extent runs fastest, and the extents are in the order of the source
 * network: images are batch, channels, height, width where PyTorch has them so. Their natural alignment is
 * enough. None may overlap another or the workspace.
 *
 * The workspace is {macro}_WORKSPACE_BYTES of the caller's memory at a multiple of {macro}_ALIGNMENT
 * bytes. What is in it before and after a run does not matter. Nothing is allocated and the library has no
 * writable data, so several threads may run it at once, each with a workspace of its own. Large buffers are
 * in the workspace and not on the stack, of which a run takes {macro}_STACK_BYTES at most, besides what
 * memcpy and libm take.
 *
 * {name}_run uses the thread that calls it, {name}_run_threads those of a pool of the caller's, and a
 * workspace of {macro}_WORKSPACE_BYTES_OF(threads). Both compute the same.
 *
 * They return 0, or 1 where the workspace is not aligned; then they have done nothing.
 *
 * {name}_info returns JSON about the library, with {macro}_CHECKSUM in it if this header belongs to it.
{asked} */
#ifndef {macro}_H
#define {macro}_H

#include <stdint.h>

{counts}#define {macro}_WORKSPACE_BYTES {workspace}
#define {macro}_WORKSPACE_BYTES_OF(threads) ({macro}_WORKSPACE_BYTES + ((threads) - 1) * {own})
#define {macro}_ALIGNMENT {alignment}
#define {macro}_STACK_BYTES {stack}
#define {macro}_CHECKSUM "{checksum}"

#ifdef __cplusplus
extern "C" {{
#endif

/* run calls task(data, i, threads) once for each i from 0 to threads - 1, from any threads, and returns when
 * all of these calls have. threads is at least 1. */
struct {name}_pool {{
  void (*run)(void *self, void (*task)(void *data, int32_t i, int32_t threads), void *data, int32_t threads);
  void *self;
  int32_t threads;
}};

int {name}_run({", ".join(parameters)}, void *workspace);
int {name}_run_threads({", ".join(parameters)}, void *workspace,
    const struct {name}_pool *pool);
const char *{name}_info(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _example(name: str, tensors: Sequence[tuple[str, Tensor]]) -> str:
    macro = name.upper()
    inputs = [place for place, _ in tensors if place.startswith("input")]
    memory = "".join(
        f"static {_C_TYPES[tensor.dtype]} {place}[{macro}_{place.upper()}_COUNT];\n"
        for place, tensor in tensors
    )
    read = "".join(
        f"  if (!read_input(argv[{i + 1}], {place}, sizeof {place})) return 1;\n"
        for i, place in enumerate(inputs)
    )
    shown = "".join(
        f"  for (long i = 0; i < {macro}_{place.upper()}_COUNT; i++) "
        f"printf({_PRINTED.get(tensor.dtype, _PRINTED_INTEGER)}{place}[i]);\n"
        for place, tensor in tensors
        if place.startswith("output")
    )
    arguments = ", ".join([*(place for place, _ in tensors), "workspace"])
    return f"""\
/* Runs the network once, on files as numpy's tofile() writes them, and prints every value of every output. */
#include <stdio.h>
#include <string.h>

#include "{name}.h"

{memory}static _Alignas({macro}_ALIGNMENT) unsigned char workspace[{macro}_WORKSPACE_BYTES];

static int read_input(const char *path, void *to, size_t bytes) {{
  FILE *file = fopen(path, "rb");
  int whole = file && fread(to, 1, bytes, file) == bytes && fgetc(file) == EOF;
  if (!whole) fprintf(stderr, "%s is not a file of %lu bytes.\\n", path, (unsigned long)bytes);
  if (file) fclose(file);
  return whole;
}}

int main(int argc, char **argv) {{
  if (argc != {len(inputs) + 1}) {{
    fprintf(stderr, "Usage: %s {" ".join(place.upper() for place in inputs)}\\n", argv[0]);
    return 2;
  }}
  if (!strstr({name}_info(), {macro}_CHECKSUM)) {{
    fprintf(stderr, "{name}.h and the library are not of the same network.\\n");
    return 1;
  }}
{read}  if ({name}_run({arguments})) return 1;
{shown}  return 0;
}}
"""


_PRINTED_INTEGER = '"%lld\\n", (long long)'


def _cmake(name: str, libraries: str, bare: bool) -> str:
    more = "" if bare else f", and `{name}_threads` with the pool of threads"
    pool = _CMAKE_OF_POOL.replace("@name@", name)
    linked = f"\n  INTERFACE_LINK_LIBRARIES {libraries}" if libraries else ""
    return f"""\
# add_subdirectory() of this folder gives the target `{name}`, for target_link_libraries(... {name}){more}.
cmake_minimum_required(VERSION 3.13)
project({name} C)

add_library({name} STATIC IMPORTED GLOBAL)
set_target_properties({name} PROPERTIES
  IMPORTED_LOCATION "${{CMAKE_CURRENT_SOURCE_DIR}}/lib{name}.a"
  INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_SOURCE_DIR}}"{linked})
{"" if bare else pool}
if(CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
  set(CMAKE_C_STANDARD 11)
  add_executable(example example.c)
  target_link_libraries(example {name})
endif()
"""


_CMAKE_OF_POOL = """
find_package(Threads REQUIRED)
add_library(@name@_threads STATIC EXCLUDE_FROM_ALL @name@_threads.c)
target_link_libraries(@name@_threads PUBLIC @name@ Threads::Threads)
"""


def _licences() -> str:
    shipped = metadata.distribution("apache-tvm").locate_file("tvm")
    parts = [
        "The library has code that was generated from the kernels of bibench_tvm and the operators of\n"
        "Apache TVM, both under the Apache License 2.0 (below, as it comes with TVM), and TVM's\n"
        "conversions of half precision, which are after LLVM's compiler-rt (below that). The constants\n"
        "are those of the network, whose terms its authors decide.\n",
        *(Path(str(shipped), file).read_text("utf-8") for file in _LICENCES),
    ]
    return f"\n{'-' * 80}\n\n".join(parts)


_LICENCES = ("LICENSE", "licenses/LICENSE.builtin_fp16.txt")


def _const(place: str) -> str:
    return "const " if place.startswith("input") else ""


def _comment(text: str) -> str:
    """On one line, and without an end of the comment."""
    return " ".join(text.split()).replace("*/", "* /").replace("/*", "/ *")
