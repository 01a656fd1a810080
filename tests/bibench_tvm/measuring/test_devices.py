"""Devices by adb and by ssh: a network in C goes there, computes what it should, and is timed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainers
from bibench_tvm import BibenchError, compile_model
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.measuring import device as device_facts
from rpc import emulated
from rpc.devices.answers import Done, Timing, answer
from rpc.devices.device import reach
from rpc.devices.here import run_here
from rpc.listing import RemoteError
from tests.rpc.devices.stand_in import SERIAL, count_instructions
from tests.trainers.toy_image import Brighter, Tiny
from trainers.tasks import tasks


@pytest.fixture(scope="module")
def arm(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The small network for a phone: (1, 4, 8, 8) -> (1, 5)."""
    return compile_model(small_file, target="kirin980", out=tmp_path_factory.mktemp("arm"), standalone=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 8, 8), np.uint8)
    np.savez(path, images=pixels, labels=np.arange(7) % 5, mean=np.full(4, 0.5), std=np.float32(0.25))
    return path


def test_bench_on_a_phone(invoke: Callable, phone: Path, arm: Artifact, images: Path) -> None:
    options = ["--images", images, "--runs", 3, "--threads", 2, "--json"]
    done = invoke("bench", arm.folder, "--board", SERIAL, *options)
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    assert result["board"]["key"] == SERIAL and result["board"]["machine"] == "aarch64"
    assert result["board"]["cpu"] == "cortex-a76" and "dotprod" in result["board"]["features"]
    assert result["latency_ms"]["runs"] == 3 and result["latency_ms"]["min"] > 0
    assert result["check"] == {"identical": True, "by": "qemu-aarch64 -cpu max", "reason": ""}
    assert len(result["timed_on_cores"]) == result["threads"] == 2 and result["warm_up_runs"] >= 1
    assert result["accuracy"]["images"] == 7 and result["peak_memory_bytes"] > 0
    assert result["layers"] == [] and {"governor", "mhz"} <= set(result["conditions"]["before"])
    assert list(phone.iterdir()) == [], "nothing is left there"


def test_the_same_as_the_artifact(phone: Path, arm: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an adb that says nothing of the exit status, and ends lines as Windows does."""
    monkeypatch.setenv("PHONE_OLD", "1")
    chance = np.random.default_rng(0)
    samples = [[chance.standard_normal((1, 4, 8, 8)).astype(np.float32)] for _ in range(3)]
    expected = emulated.run(arm.folder / "model.so", samples, cpu="cortex-a76", timeout_s=60)
    with reach(SERIAL, limit_s=60) as device:
        network = arm.network_on(device)
        found = list(network.run_each(samples))
        assert [a.tobytes() for (a,) in found] == [b.tobytes() for (b,) in expected]
        seconds = network.time(samples[1], number=2, repeat=2)
        assert len(seconds) == 2 and min(seconds) > 0
        assert isinstance(network.timing, Timing) and len(network.timing.nanoseconds) == 4
        assert network.timed_outputs[0].tobytes() == expected[1][0].tobytes()
        with pytest.raises(RemoteError, match="4096 threads were asked for, and the device adb:R5CT20ABC"):
            device.use_threads(4096)


def test_bench_over_ssh(
    invoke: Callable, login: Path, arm: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke("bench", arm.folder, "--board", "ssh:me@host", "--runs", 5, "--json")
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    assert result["check"]["identical"] is True and result["latency_ms"]["runs"] == 5
    assert list(login.iterdir()) == []
    for said, sentence in (
        (
            "ssh: Could not resolve hostname host: Name or service not known",
            "There is no host of the name in",
        ),
        ("ssh: connect to host host port 22: Connection refused", "reached: no ssh server listens there."),
        (
            "me@host: Permission denied (publickey).",
            "does not let this user in by key. Type: ssh-copy-id me@host",
        ),
        (
            "Host key verification failed.",
            "is not known here, or has changed. Look at it once by hand: ssh me@host",
        ),
        ("kex_exchange_identification: read: reset", "ended before the work did."),
    ):
        monkeypatch.setenv("SSH_SAYS", said)
        done = invoke("bench", arm.folder, "--board", "ssh:me@host", "--json")
        assert done.code == 1 and sentence in done.json["error"], done.json


FAULTS: list[tuple[dict[str, str], str]] = [
    ({"PHONE_STATE": ""}, "adb has no device R5CT20ABC. It has none at all."),
    ({"PHONE_STATE": "unauthorized"}, "does not trust this machine. Unlock it, and allow debugging"),
    ({"PHONE_STATE": "offline"}, "is offline. Unplug it"),
    ({"PHONE_STATE": "no permissions (user in plugdev group)"}, "this user may not use it. On Debian, type:"),
    ({"PHONE_STATE": "recovery"}, "is in the state 'recovery': start Android."),
    ({"PHONE_FULL": "1"}, "The device adb:R5CT20ABC has no space left: sending "),
    ({"PHONE_MACHINE": "riscv64"}, "is riscv64, and programs are made for aarch64, armv7l, x86_64."),
    ({"PHONE_DIES": "ILL"}, "died of SIGILL: it used an instruction that this processor does not have."),
    ({"PHONE_DIES": "KILL"}, "died of SIGKILL: it was killed, perhaps for want of memory."),
    ({"PHONE_DIES": "ALRM"}, "ran longer than the 3600 s that it has, and was ended."),
    ({"PHONE_LOST": "1"}, "The connection to the device adb:R5CT20ABC ended before the work did."),
]


@pytest.mark.parametrize(("phone_is", "sentence"), FAULTS)
def test_faults_are_sentences(
    invoke: Callable,
    phone: Path,
    arm: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    phone_is: dict[str, str],
    sentence: str,
) -> None:
    for name, value in phone_is.items():
        monkeypatch.setenv(name, value)
    done = invoke("bench", arm.folder, "--board", SERIAL, "--json")
    assert done.code == 1 and sentence in done.json["error"], done.json
    assert list(phone.iterdir()) == []


def test_what_does_not_fit_a_phone(
    invoke: Callable, phone: Path, arm: Artifact, artifact: Artifact, small_file: Path, tmp_path: Path
) -> None:
    done = invoke("bench", artifact.folder, "--board", SERIAL, "--json")
    assert done.code == 1 and "(x86_64), and the device adb:R5CT20ABC is aarch64" in done.json["error"]
    plain = compile_model(small_file, target="kirin980", out=tmp_path / "plain")
    done = invoke("bench", plain.folder, arm.folder, "--board", SERIAL, "--runs", 2, "--json")
    assert done.code == 1 and len(done.json["results"]) == 1
    assert "has no library for C, and a device without TVM runs no other" in done.json["failed"][0]
    header = (arm.folder / "standalone" / "model.h").resolve()
    kept = header.read_bytes()
    try:
        header.write_bytes(kept + b"\n")
        with pytest.raises(BibenchError, match="model.h is not the file that the manifest describes"):
            arm.network_in_c()
    finally:
        header.write_bytes(kept)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--board", "adb:"], 2, "'adb:' names no device: write adb:SERIAL"),
        (["--board", "ssh:-oProxyCommand=true"], 2, "names no device"),
        (["--board", "ssh:a b"], 2, "names no device"),
        (["--board", "ssh:pi", "--against", "topi"], 2, "--against needs TVM on the board"),
    ],
)
def test_wrong_keys(invoke: Callable, artifact: Artifact, options: list, code: int, sentence: str) -> None:
    done = invoke("bench", artifact.folder, *options, "--json")
    assert done.code == code and sentence in done.json["error"]


def test_without_adb(invoke: Callable, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for key, tool in (SERIAL, "adb"), ("ssh:pi", "ssh"):
        done = invoke("bench", artifact.folder, "--board", key, "--json")
        assert done.code == 1 and f"{tool} is not installed here. Type: " in done.json["error"]


@pytest.mark.parametrize("said", [b"", b"{}", b"hello", b'{"samples": -1}', b"\xff"])
def test_nonsense_is_refused(said: bytes) -> None:
    with pytest.raises(RemoteError, match="What the program on the device says makes no sense"):
        answer(said, Done, "the device")


def test_another_result_is_a_failure(
    invoke: Callable, phone: Path, arm: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(*arguments: Any) -> tuple[str, list[list[np.ndarray]]]:
        by, ((scores,),) = run_here(*arguments)
        scores.view(np.uint8)[0, 0] ^= 1
        return by, [[scores]]

    monkeypatch.setattr(device_facts, "run_here", off)
    done = invoke("bench", arm.folder, "--board", SERIAL, "--runs", 2, "--json")
    assert done.code == 1 and "is wrong: output 0 is not what the same program" in done.json["error"]


def test_run_on_a_phone(invoke: Callable, phone: Path, arm: Artifact, tmp_path: Path) -> None:
    """Three times what it was compiled for, on two threads: the bits of 64-bit Arm."""
    x = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    expected = emulated.run(
        arm.folder / "model.so", [[one[None]] for one in x], cpu="cortex-a76", timeout_s=60
    )
    files = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    done = invoke("run", arm.folder, *files, "--board", SERIAL, "--threads", 2, "--json")
    assert done.code == 0, done.stderr
    assert (done.json["board"], done.json["emulated"]) == (SERIAL, False)
    assert np.load(tmp_path / "y.npy").tobytes() == b"".join(y.tobytes() for (y,) in expected)
    assert list(phone.iterdir()) == []


def test_a_task_is_judged_on_a_phone(
    invoke: Callable, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 images in batches of 64, of which the artifact takes five at a time."""
    monkeypatch.setitem(tasks._entries, "brighter", Brighter)
    torch.manual_seed(0)
    model, task = trainers.binarize(Tiny(), "reactnet").eval(), Brighter()
    images, labels = task.batch("test", range(64))
    expected = float((model(images).argmax(1) == labels).float().mean())
    compile_model(model, torch.zeros(5, 1, 8, 8), target="kirin980", out=tmp_path, standalone=True)
    options = ["--board", SERIAL, "--task", "brighter", "--json"]
    done = invoke("train", "--evaluate", tmp_path, *options)
    assert done.code == 0, done.stderr
    assert (done.json["board"], done.json["emulated"]) == (SERIAL, False)
    assert done.json["metrics"] == {"accuracy": pytest.approx(expected)} and 0.2 < expected < 1
    (result,) = invoke("bench", tmp_path, "--runs", 2, *options).json["results"]
    assert result["metrics"] == done.json["metrics"]


def test_by_instructions(
    invoke: Callable, phone: Path, arm: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that counts them says that it is emulated, and has no time; twice the same, on one thread."""
    count_instructions("cortex-a76", monkeypatch)
    options = ["--board", SERIAL, "--json"]
    (one,), (two,) = (invoke("bench", arm.folder, *options).json["results"] for _ in range(2))
    assert one["emulated"] and one["latency_ms"] is None and one["check"]["identical"] is True
    assert one["instructions"] == two["instructions"] and one["instructions"]["spread"] == 0
    assert 10_000 < one["instructions"]["median"] < 1_000_000
    done = invoke("bench", arm.folder, *options, "--threads", 2)
    assert done.code == 1 and "2 threads were asked for" in done.json["error"]


def test_32_bit_arm(
    invoke: Callable, phone: Path, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it computes is what `qemu-arm` gives here, and about what 64-bit Arm does."""
    monkeypatch.setenv("PHONE_MACHINE", "armv7l")
    monkeypatch.setenv("DEVICE_CPU", "cortex-a7")
    artifact = compile_model(small_file, target="armv7", out=tmp_path, standalone=True)
    done = invoke("bench", tmp_path, "--board", SERIAL, "--runs", 2, "--json")
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    assert result["board"]["machine"] == "armv7l" and {"neon", "vfp4"} <= set(result["board"]["features"])
    assert result["check"] == {"identical": True, "by": "qemu-arm -cpu max", "reason": ""}
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    with reach(SERIAL, limit_s=60) as device:
        found = artifact.run_on(device, x)
    here = compile_model(small_file, out=tmp_path / "here").run(x)
    np.testing.assert_allclose(found, here, rtol=1e-4, atol=1e-5)
