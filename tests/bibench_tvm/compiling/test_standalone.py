"""A network as a library for C computes what the artifact beside it does, bit for bit, and needs nothing."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainers
from bibench_tvm import BibenchError, compile_model, load
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.compiling.standalone.elf import Elf
from bibench_tvm.compiling.standalone.library import c_identifier
from rpc import emulated
from rpc.emulation import c_network, cortex_m, qemu
from tests.bibench_tvm.compiling.c_library import Both, by_ctypes, compiled, network, record, same, samples

ZIG = [sys.executable, "-m", "ziglang", "cc", "-O1"]  # else it builds more than it has in its cache
CASES = list(
    zip(
        ["bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda"],
        itertools.cycle([1, 4]),
        itertools.cycle(["float32", "int8", "int8", "float32"]),
        strict=False,
    )
)


@pytest.mark.parametrize(("algorithm", "batch", "float_layers"), CASES)
def test_the_same_as_the_artifact(algorithm: str, batch: int, float_layers: str, tmp_path: Path) -> None:
    artifact = compiled(algorithm, tmp_path, batch, float_layers=float_layers)
    for inputs in samples(artifact):
        expected = artifact.run(*inputs)
        assert same(by_ctypes(artifact, inputs), expected)
        assert same(by_ctypes(artifact, inputs, threads=3), expected)


def test_fsmn(tmp_path: Path) -> None:
    model = trainers.binarize(trainers.create_model("fsmn@small"), "fda").eval()
    artifact = compile_model(model, out=tmp_path, standalone=True, float_layers="int8")
    for inputs in samples(artifact, 1):
        expected = artifact.run(*inputs)
        assert same(by_ctypes(artifact, inputs), expected)
        assert same(by_ctypes(artifact, inputs, threads=2), expected)


def test_threads_with_memory_of_their_own(tmp_path: Path) -> None:
    """Of a kernel whose tasks have large buffers, Winograd's."""
    torch.manual_seed(0)
    wide = torch.nn.Conv2d(8, 64, 3, padding=1)
    artifact = compile_model(wide.eval(), torch.zeros(1, 8, 32, 32), out=tmp_path, standalone=True)
    (inputs,) = samples(artifact, 1)
    assert record(artifact).thread_bytes > 0
    for threads in (0, 1, 4):
        assert same(by_ctypes(artifact, inputs, threads), artifact.run(*inputs))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compiled("reactnet", tmp_path_factory.mktemp("model"))


def test_generic_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIBENCH_HOST", "generic")
    artifact = compiled("bireal", tmp_path)
    for inputs in samples(artifact):
        assert same(by_ctypes(artifact, inputs), artifact.run(*inputs))


def test_buffers_between_pages_that_may_not_be_touched(model: Artifact) -> None:
    given = samples(model)
    found = c_network.run(network(model), given, ZIG, [], {}, 60)
    for inputs, ours in zip(given, found, strict=True):
        assert same(ours, model.run(*inputs))


def test_on_64_bit_arm(board: None, tmp_path: Path) -> None:
    assert_the_same_on_64_bit_arm(compiled("recu", tmp_path, target="arm_cpu"))


def test_kernels_that_share_their_sums(board: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    widths = 3, 64, 64, 256, 256, 256  # sums across channels, and along them
    layers = [torch.nn.Conv2d(taken, given, 3, padding=1) for taken, given in itertools.pairwise(widths)]
    model = trainers.binarize(torch.nn.Sequential(*layers), "bnn", keep=["0"]).eval()
    options = {"target": "arm_cpu", "out": tmp_path, "standalone": True}
    artifact = compile_model(model, torch.zeros(1, 3, 5, 5), **options)
    assert_the_same_on_64_bit_arm(artifact)


def assert_the_same_on_64_bit_arm(artifact: Artifact) -> None:
    """As a library for C and as an artifact."""
    emulator, sysroot, _ = emulated.prepared("run_model.c")
    compiler = qemu.compiler("aarch64-linux-gnu-gcc", ["aarch64-linux-gnu.2.28"])
    environment = {"LD_LIBRARY_PATH": str(sysroot / "lib")}
    command = [emulator, "-cpu", "cortex-a53", "-L", str(sysroot)]
    given = samples(artifact)
    found = c_network.run(network(artifact), given, compiler, command, environment, 60)
    expected = emulated.run(artifact.folder / "model.so", given, cpu="cortex-a53", timeout_s=60)
    for ours, theirs in zip(found, expected, strict=True):
        assert same(ours, tuple(theirs))


def test_32_bit_arm_is_verified_whole(tmp_path: Path) -> None:
    inputs = torch.zeros(1, 3, 8, 8), torch.zeros(1, 19)
    artifact = compile_model(Both("xnor").eval(), inputs, target="armv7", out=tmp_path, verify=2)
    found = artifact.record.verification
    assert found.backend == "qemu-arm -cpu cortex-a7, as a library for C"
    assert found.passed is True and found.samples == 2 and found.signs, found.reason
    assert not (tmp_path / "standalone").exists()


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_microcontrollers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = compiled("bnn", tmp_path, target=name)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["manifest.json", "standalone"] and load(tmp_path).record == artifact.record
    given = samples(artifact)
    with pytest.raises(BibenchError, match=f"is for {name} .armv7l., and this machine is"):
        artifact.run(*given[0])
    assert {"libmodel.a", "model.h"} <= set(record(artifact).files) and "libmodel.so" not in record(
        artifact
    ).files
    found = cortex_m.run_network(network(artifact), given, cpu=name, timeout_s=60)
    said = record(artifact).stack_bytes
    assert isinstance(said, int) and said - 128 <= found.stack_bytes <= said + 512, found.stack_bytes
    monkeypatch.setenv("BIBENCH_HOST", "generic")
    here = compiled("bnn", tmp_path / "here")
    for inputs, (image, scores, top) in zip(given, found.outputs, strict=True):
        expected = here.run(*inputs)
        np.testing.assert_allclose(image, expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scores, expected[1], rtol=1e-5, atol=1e-6)
        assert np.array_equal(top, expected[2])


def test_two_networks_in_one_program(model: Artifact, tmp_path: Path) -> None:
    """Both written in C, as `example.c` is, and linked by a C compiler."""
    other = compiled("dorefa", tmp_path / "other", name="Key word-spotter 2")
    assert record(other).name == "Key_word_spotter_2"
    (tmp_path / "both.c").write_text(
        """
        #include "model.h"
        #include "Key_word_spotter_2.h"
        #include <stdio.h>
        #include <string.h>
        static float image[MODEL_INPUT0_COUNT], vector[MODEL_INPUT1_COUNT], maps[MODEL_OUTPUT0_COUNT];
        static float scores[MODEL_OUTPUT1_COUNT];
        static int64_t top[MODEL_OUTPUT2_COUNT];
        static _Alignas(MODEL_ALIGNMENT) char first[MODEL_WORKSPACE_BYTES];
        static _Alignas(KEY_WORD_SPOTTER_2_ALIGNMENT) char second[KEY_WORD_SPOTTER_2_WORKSPACE_BYTES + 64];
        int main(void) {
          for (int i = 0; i < MODEL_INPUT0_COUNT; i++) image[i] = (float)(i % 7 - 3);
          for (int i = 0; i < MODEL_INPUT1_COUNT; i++) vector[i] = (float)(i % 5 - 2);
          if (!strstr(model_info(), MODEL_CHECKSUM)) return 1;
          if (!strstr(Key_word_spotter_2_info(), KEY_WORD_SPOTTER_2_CHECKSUM)) return 2;
          if (Key_word_spotter_2_run(image, vector, maps, scores, top, second + 4) != 1) return 3;
          if (model_run(image, vector, maps, scores, top, first)) return 4;
          for (int i = 0; i < MODEL_OUTPUT1_COUNT; i++) printf("%.9g ", scores[i]);
          if (Key_word_spotter_2_run(image, vector, maps, scores, top, second)) return 5;
          for (int i = 0; i < MODEL_OUTPUT1_COUNT; i++) printf("%.9g ", scores[i]);
        }
        """
    )
    libraries = [f"{made.folder}/standalone/lib{record(made).name}.a" for made in (model, other)]
    folders = [f"-I{made.folder}/standalone" for made in (model, other)]
    program = tmp_path / "both"
    command = [*ZIG, "-Wall", "-Wextra", "-Werror", *folders, tmp_path / "both.c", *libraries, "-lm"]
    subprocess.run([*command, "-o", program], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    image = (np.arange(192) % 7 - 3).astype(np.float32).reshape(1, 3, 8, 8)
    vector = (np.arange(19) % 5 - 2).astype(np.float32).reshape(1, 19)
    expected = [value for made in (model, other) for value in made.run(image, vector)[1].ravel()]
    assert [np.float32(word) for word in said.split()] == expected


POOLED = """
#include "model_threads.h"
#include <stdio.h>
#include <stdlib.h>
static float image[MODEL_INPUT0_COUNT], vector[MODEL_INPUT1_COUNT];
static struct {
  float maps[MODEL_OUTPUT0_COUNT], scores[MODEL_OUTPUT1_COUNT];
  int64_t top[MODEL_OUTPUT2_COUNT];
} out;
static _Alignas(MODEL_ALIGNMENT) char memory[MODEL_WORKSPACE_BYTES_OF(4)];
int main(void) {
  if (model_threads_start(0)) return 3;
  for (int i = 0; i < MODEL_INPUT0_COUNT; i++) image[i] = (float)(i % 7 - 3);
  for (int i = 0; i < MODEL_INPUT1_COUNT; i++) vector[i] = (float)(i % 5 - 2);
  for (int32_t threads = 0; threads <= 4; threads += threads ? threads : 1) {
    const struct model_pool *pool = threads ? model_threads_start(threads) : NULL;
    if (threads && !pool) return 1;
    for (int run = 0; run < (threads ? 50 : 1); run++) {
      int failed = pool ? model_run_threads(image, vector, out.maps, out.scores, out.top, memory, pool)
                        : model_run(image, vector, out.maps, out.scores, out.top, memory);
      if (failed) return 2;
    }
    if (pool) model_threads_stop(pool);
    fwrite(&out, sizeof out, 1, stdout);
  }
}
"""


def test_our_pool_of_threads(model: Artifact, tmp_path: Path) -> None:
    """1, 2 and 4 threads, fifty runs on each pool, compute what the thread that calls does alone."""
    folder, program = model.folder / "standalone", tmp_path / "pooled"
    (tmp_path / "pooled.c").write_text(POOLED)
    sources = [tmp_path / "pooled.c", folder / "model_threads.c", folder / "libmodel.a"]
    command = [*ZIG, "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{folder}", *sources, "-lm"]
    subprocess.run([*command, "-o", program], check=True)
    said = subprocess.run([program], capture_output=True, check=True).stdout
    size = len(said) // 4
    assert size and [said[i * size : (i + 1) * size] for i in range(1, 4)] == [said[:size]] * 3
    image = (np.arange(192) % 7 - 3).astype(np.float32).reshape(1, 3, 8, 8)
    vector = (np.arange(19) % 5 - 2).astype(np.float32).reshape(1, 19)
    assert said.startswith(model.run(image, vector)[0].tobytes())


DEPTH = """
#define _GNU_SOURCE
#include "model.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
enum { SIZE = 1 << 20 };
static _Alignas(4096) unsigned char stack[SIZE];
static float image[MODEL_INPUT0_COUNT], vector[MODEL_INPUT1_COUNT], maps[MODEL_OUTPUT0_COUNT];
static float scores[MODEL_OUTPUT1_COUNT];
static int64_t top[MODEL_OUTPUT2_COUNT];
static _Alignas(MODEL_ALIGNMENT) char memory[MODEL_WORKSPACE_BYTES];
static unsigned char *before;
static void *live(void *unused) {
  volatile unsigned char *here = (unsigned char *)__builtin_frame_address(0) - 512;
  for (volatile unsigned char *at = stack + 65536; at < here; at++) *at = 0xA5;
  before = (unsigned char *)__builtin_frame_address(0);
  return model_run(image, vector, maps, scores, top, memory) ? stack : unused;
}
int main(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  void *failed;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, SIZE);
  if (pthread_create(&thread, &attributes, live, NULL) || pthread_join(thread, &failed) || failed) return 1;
  unsigned char *at = stack + 65536;
  while (*at == 0xA5) at++;
  printf("%ld", (long)(before - at));
  return 0;
}
"""


def test_the_depth_of_the_stack(model: Artifact, tmp_path: Path) -> None:
    """As painted: what is used of a stack is about what the manifest says. What libm's expf and memcpy take
    comes on top, and the frame of who calls."""
    folder, program = model.folder / "standalone", tmp_path / "depth"
    (tmp_path / "depth.c").write_text(DEPTH)
    sources = [tmp_path / "depth.c", folder / "libmodel.a"]
    subprocess.run([*ZIG, "-pthread", f"-I{folder}", *sources, "-lm", "-o", program], check=True)
    used = int(subprocess.run([program], capture_output=True, text=True, check=True).stdout)
    said = record(model).stack_bytes
    assert isinstance(said, int) and said - 512 <= used <= said + 1024, (used, said)


NM = {"mem" + end for end in ("cpy", "set", "move")} | {"expf"}


@pytest.mark.parametrize("target", ["host", "arm_cpu", "kirin980", "armv7", "cortex-m4", "cortex-m33"])
def test_every_target_takes_little_and_writes_nothing(target: str, small_file: Path, tmp_path: Path) -> None:
    artifact = compile_model(small_file, target=target, out=tmp_path, standalone=True)
    content = (tmp_path / "standalone/libmodel.a").read_bytes()
    elf = Elf(content[content.index(b"\x7fELF") :])
    taken = {symbol for symbol in elf.undefined if not symbol.startswith("__aeabi_")}
    assert taken <= NM and not elf.writable, (taken, elf.writable)
    assert 0 < record(artifact).stack_bytes < 16384


def test_the_example(model: Artifact, tmp_path: Path) -> None:
    """In a shell with a stack of 64 KB."""
    folder, program = model.folder / "standalone", tmp_path / "example"
    command = [*ZIG, "-std=c11", "-Wall", "-Wextra", "-Werror", folder / "example.c", folder / "libmodel.a"]
    subprocess.run([*command, "-lm", "-o", program], check=True)
    (inputs,) = samples(model, 1)
    files = [tmp_path / f"input{i}" for i in range(2)]
    for array, file in zip(inputs, files, strict=True):
        array.tofile(file)
    line = f"ulimit -s 64; exec {program} {files[0]} {files[1]}"
    said = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.split()
    outputs = model.run(*inputs)
    assert len(said) == sum(output.size for output in outputs)
    expected = [value for output in outputs for value in output.ravel()]
    assert [type(value)(word) for word, value in zip(said, expected, strict=True)] == expected
    wrong = subprocess.run([program, files[1], files[0]], capture_output=True, text=True)
    assert wrong.returncode == 1 and "is not a file of 768 bytes" in wrong.stderr


def test_the_header_in_cpp(model: Artifact, tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(
        """
        #include "model.h"
        alignas(MODEL_ALIGNMENT) static unsigned char workspace[MODEL_WORKSPACE_BYTES_OF(2)];
        int use(const float *image, const float *vector, float *maps, float *scores, int64_t *top) {
          model_pool pool = {[](void *, void (*task)(void *, int32_t, int32_t), void *data, int32_t threads) {
            for (int32_t i = 0; i < threads; i++) task(data, i, threads);
          }, nullptr, 2};
          return model_run_threads(image, vector, maps, scores, top, workspace, &pool);
        }
        """
    )
    command = [
        *ZIG,
        "-c",
        "-std=c++17",
        "-nostdinc++",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        tmp_path / "main.o",
    ]
    subprocess.run([*command, f"-I{model.folder}/standalone", tmp_path / "main.cpp"], check=True)


def test_what_the_library_takes_and_has(model: Artifact, tmp_path: Path) -> None:
    content = (model.folder / "standalone" / "libmodel.a").read_bytes()
    elf = Elf(content[content.index(b"\x7fELF") :])
    assert (
        set(elf.undefined) <= {"memcpy", "memset", "expf"}
        and elf.undefined == record(model).undefined_symbols
    )
    assert elf.defined == ("model_info", "model_run", "model_run_threads") and not elf.writable
    made = record(model)
    assert (
        f"#define MODEL_STACK_BYTES {made.stack_bytes}" in (model.folder / "standalone/model.h").read_text()
    )
    (tmp_path / "data.c").write_text(
        "int writable = 1; int zero; extern int other; int get(void) { return other; }"
    )
    command = [
        *ZIG,
        "-c",
        "-target",
        "thumb-linux-musleabihf",
        tmp_path / "data.c",
        "-o",
        tmp_path / "data.o",
    ]
    subprocess.run(command, check=True)
    other = Elf((tmp_path / "data.o").read_bytes())
    assert {".data", ".bss"} <= {
        name[:5].rstrip(".") for name in other.writable
    } and "other" in other.undefined


def test_what_needs_the_runtime_is_refused(tmp_path: Path) -> None:
    class Sorted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.topk(x, 3, dim=1).values

    with pytest.raises(BibenchError, match="cannot be a library without TVM: it needs .* of TVM's runtime"):
        compile_model(Sorted().eval(), torch.zeros(1, 8), out=tmp_path, standalone=True)
    assert list(tmp_path.iterdir()) == []


def test_names() -> None:
    assert c_identifier("ResNet-20 (int8)") == "ResNet_20_int8"
    for name in ("", "20 networks", "-", "\u7f51", "x" * 61):
        with pytest.raises(UsageError, match="Give another --name"):
            c_identifier(name)


def test_a_microcontroller_has_no_other_library(invoke: Callable, small_file: Path, tmp_path: Path) -> None:
    done = invoke("compile", small_file, "--target", "cortex-m4", "--out", tmp_path / "out")
    assert done.code == 2 and "cortex-m4 has no operating system" in done.stderr
    assert not (tmp_path / "out").exists()
    options = ["--target", "cortex-m4", "--standalone", "--name", "kws", "--verify", 1, "--json"]
    done = invoke("compile", small_file, *options, "--out", tmp_path / "out")
    assert done.code == 0 and "libkws.a" in done.json["standalone"]["files"] and done.json["files"] == {}
    found = done.json["verification"]
    assert found["backend"] == "qemu-system-arm -M mps2-an386, as a library for C"
    assert (found["passed"], found["samples"], found["integers_exact"]) == (True, 1, True), found["reason"]


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m33", "cortex-m55"])
def test_int8_is_verified_on_microcontrollers(name: str, tmp_path: Path) -> None:
    found = compiled("bnn", tmp_path, target=name, float_layers="int8", verify=1).record.verification
    assert found.passed and found.integers_exact, found.reason
