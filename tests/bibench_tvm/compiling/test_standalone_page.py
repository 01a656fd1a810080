"""The programs on docs/standalone.md are built and run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bibench_tvm import compile_model
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.importer.bundled import NETWORK
from rpc.emulation import cortex_m

PAGE = Path(__file__).parents[3] / "docs/standalone.md"
ZIG = [sys.executable, "-m", "ziglang", "cc", "-O1"]


def snippets(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)


@pytest.fixture(scope="module")
def kws(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The bundled network under the page's name, in the page's folder `build`."""
    folder = tmp_path_factory.mktemp("page")
    return compile_model(NETWORK, out=folder / "build", name="kws", standalone=True)


def image(artifact: Artifact) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(artifact.record.inputs[0].shape).astype(np.float32)


def run(command: object, folder: Path, **more: object) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done.stdout


def scores_of(text: str) -> list[np.float32]:
    return [np.float32(word) for word in text.split()]


MAIN = """
#include <stdio.h>
int main(void) {{
  static float image[KWS_INPUT0_COUNT], scores[KWS_OUTPUT0_COUNT];
  static _Alignas(64) unsigned char room[KWS_WORKSPACE_BYTES_OF(4)];
  FILE *file = fopen("image.bin", "rb");
  if (!file || fread(image, sizeof image, 1, file) != 1) return 2;
  (void)room;
  if ({call}) return 1;
  for (int i = 0; i < KWS_OUTPUT0_COUNT; i++) printf("%.9g\\n", (double)scores[i]);
  return 0;
}}
"""


def test_every_c_program(kws: Artifact) -> None:
    """Declarations, a pool of one's own, ours: each is linked into a program that gives the right scores."""
    folder, x = kws.folder.parent, image(kws)
    x.tofile(folder / "image.bin")
    calls = [
        "kws_run(image, scores, room) || !kws_info()",
        "kws_run_threads(image, scores, room, &my_pool)",
        "on_four_threads(image, scores)",
    ]
    *programs, firmware = snippets("c")
    assert len(programs) == len(calls) and "classify" in firmware
    flags = ["-Wall", "-Wextra", "-Werror", "-Ibuild/standalone", "-pthread"]
    for program, call in zip(programs, calls, strict=True):
        header = "" if "#include" in program else '#include "kws.h"\n'
        (folder / "page.c").write_text(header + program + MAIN.format(call=call))
        sources = ["page.c", "build/standalone/kws_threads.c", "build/standalone/libkws.a"]
        run([*ZIG, *flags, *sources, "-o", "page"], folder)
        assert scores_of(run("./page", folder)) == list(kws.run(x).ravel())


def test_the_lines_for_a_raspberry_pi(kws: Artifact) -> None:
    folder, x = kws.folder.parent, image(kws)
    x.tofile(folder / "input.bin")
    lines = re.findall(r"^    ((?:cc|\./example) .*)$", PAGE.read_text(), flags=re.M)
    assert len(lines) == 2
    compiler = f'cc() {{ {" ".join(ZIG)} "$@"; }}\n'
    assert scores_of(run(["sh", "-ec", compiler + "\n".join(lines)], folder)) == list(kws.run(x).ravel())


def test_cmake(kws: Artifact) -> None:
    """An app with the page's lines, and the folder by itself with its example and its pool."""
    folder, x = kws.folder.parent, image(kws)
    x.tofile(folder / "image.bin")
    (lines,) = snippets("cmake")
    (folder / "app.c").write_text(
        '#include "kws_threads.h"\n'
        + MAIN.format(call="kws_run_threads(image, scores, room, kws_threads_start(3))")
    )
    text = "cmake_minimum_required(VERSION 3.13)\nproject(app C)\nadd_executable(app app.c)\n"
    (folder / "CMakeLists.txt").write_text(f"{text}{lines}target_link_libraries(app PRIVATE kws_threads)\n")
    tool = shutil.which("cmake")
    assert tool, "cmake is not installed. Type: apt-get install -y --no-install-recommends cmake make"
    run([tool, "-S", ".", "-B", "made"], folder, env={**os.environ, "CC": " ".join(ZIG)})
    run([tool, "--build", "made", "--target", "app"], folder)
    assert scores_of(run("made/app", folder)) == list(kws.run(x).ravel())


def test_python_without_tvm(kws: Artifact) -> None:
    folder = kws.folder.parent
    (program,) = snippets("python")
    after = "import sys\nassert 'tvm' not in sys.modules\nprint(*y[0])"
    said = run([sys.executable, "-c", f"{program}\n{after}"], folder)
    expected = kws.run(np.zeros(kws.record.inputs[0].shape, np.float32))
    np.testing.assert_array_equal(scores_of(said), expected.ravel())


def test_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an emulated Cortex-M4: the same as generic kernels on this machine."""
    made = compile_model(NETWORK, target="cortex-m4", out=tmp_path / "build", name="kws", standalone=True)
    folder, x = tmp_path, image(made)
    (folder / "firmware.c").write_text(snippets("c")[-1])
    call = f"""#include "{(made.folder / "standalone/kws.h").resolve()}"
extern float image[KWS_INPUT0_COUNT], scores[KWS_OUTPUT0_COUNT];
int classify(void);
#define INPUTS(F) F(image)
#define OUTPUTS(F) F(scores)
#define CALL() classify()
"""
    sources = [folder / "firmware.c", made.folder / "standalone/libkws.a"]
    machine, headers = cortex_m.MACHINES["cortex-m4"], [made.folder / "standalone"]
    program = cortex_m.build(machine, call, sources, folder, headers)
    x.tofile(folder / "inputs")
    cortex_m.start(program, "cortex-m4", folder, timeout_s=60)
    monkeypatch.setenv("BIBENCH_HOST", "generic")
    here = compile_model(NETWORK, out=tmp_path / "here")
    assert (folder / "outputs").read_bytes() == here.run(x).tobytes()
