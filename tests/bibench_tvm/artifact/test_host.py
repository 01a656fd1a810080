"""What `host` is taken to be: what the processor has, or the less that BIBENCH_HOST says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.target import codegen

from bibench_tvm.artifact import host
from bibench_tvm.artifact.artifact import load
from bibench_tvm.artifact.host import host_features
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import import_model
from relay_passes import finish, lower
from schedules.targets.choose import executable

X86 = "x86_64-linux-gnu"
HERE = [k.name for k in executable(str(codegen.llvm_get_system_triple()), host.processor_features())]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend to be another: its triple and name, what it says it has and lacks; `host` is not lowered."""

    def pretend(triple: str, cpu: str, has: set[str], lacks: set[str]) -> None:
        monkeypatch.delenv("BIBENCH_HOST", raising=False)
        monkeypatch.setattr(codegen, "llvm_get_system_triple", lambda: triple)
        monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: cpu)
        monkeypatch.setattr(host, "_detected_features", lambda: (frozenset(has), frozenset(lacks)))

    return pretend


def resolved(monkeypatch: pytest.MonkeyPatch, lowered: str) -> tuple[str, str, set[str]]:
    monkeypatch.setenv("BIBENCH_HOST", lowered)
    target = resolve_target("host")
    assert target.name == "host" and target.is_host
    return target.kernels.name, target.cpu, set(target.features)


AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512vpopcntdq", "avx512bitalg", "avx512vnni"}


def test_avx512_can_be_lowered(monkeypatch: pytest.MonkeyPatch, processor: Callable) -> None:
    processor(X86, "znver4", {"avx2", *AVX512}, set())
    full = ("x86_avx512", "znver4", {"avx2", *AVX512})
    assert resolved(monkeypatch, "") == resolved(monkeypatch, "x86_avx512") == full
    assert resolved(monkeypatch, "x86_avx2") == ("x86_avx2", "x86-64-v3", {"avx2"})
    assert resolved(monkeypatch, "GENERIC ") == ("generic", "x86-64", set())
    assert resolve_target("host").kernels.dot.word == 8
    assert host_features() == {"avx2", *AVX512}, "what this machine can run is not lowered"


def test_what_a_virtual_machine_hides_is_not_used(
    monkeypatch: pytest.MonkeyPatch, processor: Callable
) -> None:
    processor(X86, "znver4", {"avx2"}, AVX512 | {"bmi2"})
    assert resolved(monkeypatch, "") == ("x86_avx2", "znver4", {"avx2"})
    mattr = {str(a) for a in resolve_target("host").tvm.attrs["mattr"]}
    assert {"-avx512f", "-bmi2"} <= mattr and host_features() == {"avx2"}
    processor(X86, "znver4", {"avx2", *AVX512}, {"bmi2"})
    monkeypatch.setenv("BIBENCH_HOST", "x86_avx2")
    assert [str(a) for a in resolve_target("host").tvm.attrs["mattr"]] == ["-bmi2"]


def test_a_processor_that_llvm_has_no_name_for(monkeypatch: pytest.MonkeyPatch, processor: Callable) -> None:
    processor(X86, "x86-64", {"avx2", "fma"}, set())
    assert resolved(monkeypatch, "") == ("x86_avx2", "x86-64", {"avx2"})


def test_on_arm(monkeypatch: pytest.MonkeyPatch, processor: Callable) -> None:
    processor("aarch64-linux-gnu", "cortex-a76", {"neon"}, set())
    full = resolved(monkeypatch, "aarch64_neon")
    assert (
        full == resolved(monkeypatch, "") == ("aarch64_neon", "cortex-a76", {"dotprod", "fullfp16", "neon"})
    )
    assert resolved(monkeypatch, "generic") == ("generic", "generic", {"neon"})


@pytest.mark.parametrize(
    ("lowered", "sentence"),
    [
        ("x86_avx512", "is 'x86_avx512', which this processor cannot execute. Here it can be x86_avx2 or"),
        ("aarch64_neon", "is 'aarch64_neon', which this processor cannot execute."),
        ("avx2", "is 'avx2', which is no kernel target. Here it can be x86_avx2 or generic."),
    ],
)
def test_what_cannot_be_is_a_sentence(
    invoke: Callable,
    processor: Callable,
    monkeypatch: pytest.MonkeyPatch,
    small_file: Path,
    tmp_path: Path,
    lowered: str,
    sentence: str,
) -> None:
    processor(X86, "znver3", {"avx2"}, set())
    monkeypatch.setenv("BIBENCH_HOST", lowered)
    for line in (["compile", small_file, "--target", "host"], ["tune", small_file], ["targets"]):
        out = ["--out", tmp_path / "out"] if line != ["targets"] else []
        done = invoke(*line, *out, "--json")
        assert done.code == 2, done.stderr
        assert f"BIBENCH_HOST {sentence}" in done.json["error"]


@pytest.mark.parametrize(("lowered", "registers"), [("", "%zmm"), ("x86_avx2", "%ymm"), ("generic", "%xmm")])
def test_the_code_uses_no_more(
    monkeypatch: pytest.MonkeyPatch, processor: Callable, small_file: Path, lowered: str, registers: str
) -> None:
    """Made for a processor with AVX-512, and not run."""
    processor(X86, "znver4", {"avx2", *AVX512}, set())
    monkeypatch.setenv("BIBENCH_HOST", lowered)
    imported, target = import_model(small_file), resolve_target("host")
    finished = finish(
        lower(imported.module, imported.layer_names, target.kernels).module, target.tvm, target.kernels
    )
    code = tvm.compile(finished, target=target.tvm).mod.imports[0].inspect_source("asm")
    wide = ["%zmm", "%ymm", "%xmm"]
    assert [r for r in wide if r in code] == wide[wide.index(registers) :]
    assert ("\tv" in code) == (lowered != "generic"), "instructions of AVX have names with a v"


@pytest.mark.parametrize("lowered", HERE)
def test_a_whole_network_for_each_that_this_machine_can_execute(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable, small_file: Path, tmp_path: Path, lowered: str
) -> None:
    """Float layers and int8 ones; what was compiled for less runs on the whole host."""
    for options in ([], ["--float-layers", "int8"]):
        monkeypatch.setenv("BIBENCH_HOST", lowered)
        line = ["compile", small_file, "--target", "host", "--verify", 2, "--out", tmp_path, "--json"]
        done = invoke(*line, *options)
        assert done.code == 0, done.stderr
        assert done.json["verification"]["passed"] and done.json["verification"]["integers_exact"]
        assert lowered != "generic" or done.json["target"]["features"] == []
        monkeypatch.delenv("BIBENCH_HOST")
        assert load(tmp_path).run(np.zeros((2, 4, 8, 8), "float32")).shape == (2, 5)


def test_records_are_for_what_it_is_lowered_to(
    monkeypatch: pytest.MonkeyPatch, processor: Callable, invoke: Callable
) -> None:
    from bibench_tvm.compiling.build import chooser

    processor(X86, "znver5", {"avx2", *AVX512}, set())
    assert chooser(resolve_target("host"), None).source == "x86_avx512-znver5.json"
    monkeypatch.setenv("BIBENCH_HOST", "x86_avx2")
    assert chooser(resolve_target("host"), None).source == "x86_avx2-x86-64-v3.json"
    listed: list[dict[str, Any]] = invoke("targets", "--json").json["targets"]
    assert (listed[0]["name"], listed[0]["cpu"], listed[0]["features"]) == ("host", "x86-64-v3", ["avx2"])
    assert listed[0]["description"] == "this machine, taken for x86_avx2 by BIBENCH_HOST"
