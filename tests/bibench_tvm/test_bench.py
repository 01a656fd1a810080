"""`python -m bibench_tvm.bench`, from the outside."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.compiling.compiler import compile_model
from bibench_tvm.compiling.processors import PRESETS, resolve_target
from bibench_tvm.importer import import_model
from bibench_tvm.importer.bundled import IMAGES, NETWORK
from bibench_tvm.measuring import measure
from bibench_tvm.measuring.peers import onnx_runtime
from relay_passes import lower
from rpc import machine
from rpc.session import list_boards, parse_address
from schedules.records.digest import digest
from schedules.records.records import Record, Records
from trainers.pretrained import pretrained


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compile_model(NETWORK, target="host", out=tmp_path_factory.mktemp("bundled"))


@pytest.fixture(scope="module")
def from_file(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The small network of an ONNX file: (1, 4, 8, 8) -> (1, 5)."""
    return compile_model(small_file, target="host", out=tmp_path_factory.mktemp("small"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven images for the small network."""
    generator = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    pixels = generator.integers(0, 256, (7, 4, 8, 8), np.uint8)
    np.savez(path, images=pixels, labels=np.arange(7) % 5, mean=np.full(4, 0.5), std=np.float32(0.25))
    return path


@pytest.fixture(scope="module")
def tracker(board: None) -> Iterator[str]:
    """HOST:PORT of a tracker with this machine as the board `here`, and an emulated one, `arm`."""
    processes: list[subprocess.Popen] = []

    def start(*arguments: str) -> dict[str, Any]:
        line = [sys.executable, "-m", *arguments, "--json"]
        processes.append(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        assert processes[-1].stdout
        text = ""
        while True:
            read = processes[-1].stdout.readline()
            assert read, f"{arguments} ended without a word"
            text += read
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text)

    try:
        about = start("bibench_tvm.tracker", "--port", "0")
        address = f"{about['host']}:{about['port']}"
        start("bibench_tvm.board", "--tracker", address, "--key", "here")
        start("bibench_tvm.board", "--tracker", address, "--key", "arm", "--emulate")
        end = time.monotonic() + 60
        while len(list_boards(parse_address(address))) < 2:
            assert time.monotonic() < end, "the boards did not register"
            time.sleep(0.1)
        yield address
    finally:
        for process in processes:
            process.terminate()
            process.communicate()


@pytest.fixture
def bench(invoke: Callable, tracker: str) -> Callable:
    """`bench ARGUMENTS --json` on the board `here`, with two runs."""

    def run(*arguments: object) -> Any:
        return invoke("bench", *arguments, "--board", "here", "--tracker", tracker, "--runs", 2, "--json")

    return run


def test_the_bundled_network_on_this_machine(command: Callable, bundled: Artifact, tmp_path: Path) -> None:
    done = command("bench", bundled.folder, "--json", "--out", tmp_path / "a/b")
    assert done.code == 0, done.stderr
    assert done.json == json.loads((tmp_path / "a/b/report.json").read_text())
    assert done.json["complete"] is True
    (result,) = done.json["results"]
    assert (result["model"], result["unit"], result["emulated"]) == ("resnet20", "ms", False)
    latency = result["latency_ms"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"] and latency["runs"] >= 10
    assert result["instructions"] is None

    assert [layer["name"] for layer in result["layers"]] == [x["name"] for x in bundled.manifest["layers"]]
    assert all(layer["cost"] > 0 for layer in result["layers"])
    parts = [*result["layers"], *result["other_kernels"]]
    assert result["layers_sum"] == pytest.approx(sum(part["cost"] for part in parts))
    assert 0.6 < result["layers_sum"] / latency["median"] < 1.6

    assert result["accuracy"]["images"] == 300
    assert 0.888 <= result["accuracy"]["top1"] <= 0.907
    assert result["size_bytes"] == (bundled.folder / "model.so").stat().st_size
    assert result["peak_memory_bytes"] > result["activation_bytes"] > 0
    assert {"governor", "load_average"} <= set(result["conditions"]["before"])
    assert re.search(r"latency, median +[\d.]+ ms", done.stderr)
    assert re.search(r"layer1\.0\.conv1 +yes +2\.36 +[\d.]+", done.stderr)


def test_accuracy_is_that_of_the_images(bench: Callable, from_file: Artifact, images: Path) -> None:
    done = bench(from_file.folder, "--images", images)
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    with np.load(images) as file:
        x = ((file["images"] / np.float32(255) - 0.5) / 0.25).astype(np.float32)
        right = from_file.run(x).argmax(-1) == file["labels"]
    assert result["accuracy"] == {"top1": pytest.approx(right.mean()), "images": 7}


def test_without_images_there_is_no_accuracy(bench: Callable, from_file: Artifact) -> None:
    (result,) = bench(from_file.folder).json["results"]
    assert result["accuracy"] is None
    assert result["accuracy_reason"] == "There are no images to classify: --images F.npz."


def test_a_task_is_judged_on_the_board(bench: Callable, invoke: Callable, tmp_path: Path) -> None:
    """As `train --evaluate` judges the network that was compiled."""
    network = pretrained("pointnet_vanilla@small", "reactnet")
    artifact = compile_model(network, target="host", out=tmp_path / "points")
    (result,) = bench(artifact.folder, "--task", "standin_points").json["results"]
    judged = invoke("train", "--evaluate", network, "--task", "standin_points", "--json").json
    assert result["metrics"] == pytest.approx(judged["metrics"], abs=0.01)
    wrong = bench(artifact.folder, "--task", "standin_speech")
    assert wrong.code == 1
    assert "Error: Input 'x' has shape (64, 1, 32, 32), and the network takes" in wrong.stderr


def test_batches_are_filled_up(small: Any, bench: Callable, images: Path, tmp_path: Path) -> None:
    import torch

    artifact = compile_model(small, torch.zeros(3, 4, 8, 8), target="host", out=tmp_path / "batch")
    (result,) = bench(artifact.folder, "--images", images).json["results"]
    assert result["accuracy"]["images"] == 7


CALM = {
    "governor": "performance",
    "throttled": "0x0",
    "load_average": 0.1,
    "temperature_c": 50.0,
    "mhz": 1500.0,
}


@pytest.mark.parametrize(
    ("before", "after", "spread", "sentence"),
    [
        ({}, {"governor": "ondemand"}, 0, "governor is ondemand"),
        ({}, {"throttled": "0x4"}, 0, "throttled itself"),
        ({}, {"throttled": "0x40000"}, 0, "throttled itself"),
        ({}, {"temperature_c": 84.0}, 0, "84 degrees"),
        ({}, {"mhz": 600.0}, 0, "fell from 1500 to 600 MHz"),
        ({"load_average": 3.0}, {}, 0, "load average was 3.00 on 4 cores before it was timed on 4 threads: "),
        ({}, {}, 0.3, "spreads over 30%"),
    ],
)
def test_what_spoils_a_timing_is_said(before: dict, after: dict, spread: float, sentence: str) -> None:
    (found,) = measure.warnings_of(4, 4, {**CALM, **before}, {**CALM, **after}, spread)
    assert sentence in found


def test_a_calm_board_and_one_that_says_nothing_have_no_warnings() -> None:
    since_yesterday = {**CALM, "throttled": "0x50000"}
    assert measure.warnings_of(4, 4, since_yesterday, since_yesterday, 0.02) == []
    silent: dict[str, Any] = dict.fromkeys(CALM)
    assert measure.warnings_of(4, 4, silent, {**silent, "throttled": "no hexadecimal"}, 0.02) == []


@pytest.mark.parametrize(
    ("cores", "threads", "most"),
    [(2, 1, 1.3), (2, 2, 0.6), (4, 4, 1.2), (4, 1, 3.3), (2, 4, 0.6), (0, 1, 0.3)],
)
def test_others_may_have_the_cores_that_are_not_used(cores: int, threads: int, most: float) -> None:
    """And of those that are, a little."""

    def said(load: float) -> list[str]:
        return measure.warnings_of(cores, threads, {**CALM, "load_average": load}, CALM, 0)

    assert said(most - 0.01) == []
    assert len(said(most + 0.01)) == 1


def test_a_layer_beside_libraries(
    bench: Callable, from_file: Artifact, small_file: Path, tmp_path: Path
) -> None:
    options = ["--against", "topi,onnxruntime,default", "--model", small_file, "--out", tmp_path]
    done = bench(from_file.folder, *options)
    assert done.code == 0, done.stderr
    against = done.json["results"][0]["against"]
    first, second, last = against["layers"]
    libraries = {"ONNX Runtime fp32", "ONNX Runtime int8"}
    assert set(first["times"]) == set(last["times"]) == {"bibench_tvm", *libraries}
    assert set(second["times"]) == {"bibench_tvm", "TVM topi bit-serial", *libraries}
    assert set(against["network"]["times"]) == {"bibench_tvm", *libraries}
    for entry in (*against["layers"], against["network"]):
        assert entry["failed"] == {}
        assert all(time["cost"] > 0 and time["ratio"] > 0 for time in entry["times"].values())
        assert entry["times"]["bibench_tvm"]["ratio"] == 1
    assert any("no tuned schedules" in sentence for sentence in against["left_out"])
    reduced = any("weights of 7 bits" in sentence for sentence in against["left_out"])
    assert reduced == ("weights of 7 bits" in done.stderr) == onnx_runtime.saturates_here()
    assert (tmp_path / "against-1.png").read_bytes()[:4] == b"\x89PNG"
    assert "TVM topi bit-serial" in (tmp_path / "against-1.svg").read_text()


def test_a_wrong_output_is_not_timed(
    bench: Callable, from_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = onnx_runtime.write_layer
    monkeypatch.setattr(onnx_runtime, "write_layer", lambda f, c, w, **k: write(f, c, 2 * w, **k))
    done = bench(from_file.folder, "--against", "onnxruntime")
    against = done.json["results"][0]["against"]
    for layer in against["layers"]:
        assert set(layer["times"]) == {"bibench_tvm"}
        assert "Its output is wrong: it differs by" in layer["failed"]["ONNX Runtime fp32"]
    assert any("--model" in sentence for sentence in against["left_out"])


def test_what_was_measured_is_kept_when_it_is_stopped(
    bench: Callable, from_file: Artifact, bundled: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure.measure

    def stopped(artifact: Artifact, *args: Any, **options: Any) -> dict[str, Any]:
        if artifact.folder == bundled.folder:
            raise KeyboardInterrupt
        return whole(artifact, *args, **options)

    monkeypatch.setattr(measure, "measure", stopped)
    done = bench(from_file.folder, bundled.folder, "--out", tmp_path)
    assert (done.code, done.stderr.splitlines()[-1]) == (1, "Error: Stopped.")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["complete"] is False
    assert [result["artifact"] for result in report["results"]] == [str(from_file.folder)]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["nowhere"], 2, "There is no folder nowhere"),
        (
            ["{small}", "--images", IMAGES],
            2,
            "has images of shape (1, 32, 32), and small takes float32 (4, 8, 8)",
        ),
        (["{small}", "--images", "nowhere.npz"], 2, "There is no file nowhere.npz"),
        (["{small}", "--against", "topy"], 2, "There is no contestant 'topy'. Did you mean topi?"),
        (["{small}", "--against", ","], 2, "names whom to compare with"),
        (["{small}", "--tracker", "127.0.0.1:9"], 2, "--tracker HOST:PORT goes with --board KEY"),
        (["{small}", "--model", "x.onnx"], 2, "--model is for --against"),
        (["{small}", "--against", "topi", "--model", NETWORK], 2, "was compiled from another file than"),
    ],
)
def test_errors_are_sentences(
    invoke: Callable, from_file: Artifact, options: list, code: int, sentence: str
) -> None:
    done = invoke("bench", *[str(o).replace("{small}", str(from_file.folder)) for o in options], "--json")
    assert done.code == code, done.stderr
    assert sentence in done.json["error"]


def test_more_threads_than_cores(bench: Callable, from_file: Artifact) -> None:
    done = bench(from_file.folder, "--threads", 1000)
    assert done.code == 1
    assert "1000 threads were asked for, and the board 'here' at 127.0.0.1:" in done.json["error"]


def test_arguments_that_cannot_be_parsed(command: Callable) -> None:
    done = command("bench", "--json")
    assert done.code == 2
    assert "ARTIFACT" in done.json["error"]


def test_a_board_says_every_feature_that_an_artifact_may_need() -> None:
    said = {feature for name in PRESETS for feature in resolve_target(name).features}
    assert said <= set(machine.LLVM_FEATURES.values())
    assert set(resolve_target("host").features) <= set(machine.describe()["features"])


def test_an_artifact_for_another_processor(bench: Callable, small_file: Path, tmp_path: Path) -> None:
    compile_model(small_file, target="rpi4b", out=tmp_path / "arm")
    done = bench(tmp_path / "arm")
    assert done.code == 1
    assert "is for rpi4b (aarch64), and the board 'here' is x86_64" in done.json["error"]


def test_an_artifact_of_an_older_program(bench: Callable, from_file: Artifact, tmp_path: Path) -> None:
    old = {k: v for k, v in from_file.manifest.items() if k != "kernels"} | {"schema_version": 2}
    folder = shutil.copytree(from_file.folder, tmp_path / "old")
    (folder / "manifest.json").write_text(json.dumps(old))
    done = bench(folder)
    assert done.code == 1
    assert "Compile the network again" in done.json["error"]


def test_without_matplotlib_the_extra_is_named(
    command: Callable, from_file: Artifact, tmp_path: Path
) -> None:
    absent = tmp_path / "absent/matplotlib"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ModuleNotFoundError('absent', name='matplotlib')")
    options = ["--against", "topi", "--out", tmp_path, "--json"]
    done = command("bench", from_file.folder, *options, PYTHONPATH=str(absent.parent))
    assert done.code == 1
    assert done.json["error"] == "This needs the package matplotlib. Type: ./install.sh bench"


@pytest.fixture(scope="module")
def tuned(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The small network with another tile than the target's for its binary layer."""
    imported, target = import_model(small_file), resolve_target("host")
    tunable = lower(imported.module, imported.layer_names, target.kernels).tunable
    (subject,) = (entry for entry in tunable if entry.task.kind == "binary_convolution")
    other = subject.task.candidates(target.kernels)[1]
    best = {subject.task.key: Record(other, 1.0, 2.0, digest(subject.task, other, target.kernels))}
    folder = tmp_path_factory.mktemp("tuned")
    made = Records(target.processor, "seconds", "Made up.", best)
    (folder / "records.json").write_text(made.to_json())
    return compile_model(small_file, target="host", tuned=folder, out=folder / "artifact")


def test_tuned_schedules_beside_the_defaults(bench: Callable, tuned: Artifact, small_file: Path) -> None:
    done = bench(tuned.folder, "--against", "default", "--model", small_file)
    assert done.code == 0, done.stderr
    against = done.json["results"][0]["against"]
    for entry in (*against["layers"], against["network"]):
        assert set(entry["times"]) == {"bibench_tvm", "bibench_tvm untuned"}
    assert against["left_out"] == []
    without = bench(tuned.folder, "--against", "default").json
    against = without["results"][0]["against"]
    assert set(against["network"]["times"]) == {"bibench_tvm"}
    assert against["left_out"] == ["The network untuned: name what was compiled with --model."]


def test_boards_side_by_side(
    invoke: Callable, tracker: str, from_file: Artifact, small_file: Path, images: Path, tmp_path: Path
) -> None:
    arm = compile_model(small_file, target="arm_cpu", out=tmp_path / "arm")
    artifacts, boards = [from_file.folder, arm.folder], ["--board", "here", "--board", "arm"]
    options = ["--tracker", tracker, "--images", images, "--runs", 2, "--against", "topi,onnxruntime"]
    done = invoke("bench", *artifacts, *boards, *options, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert len(done.json["left_out"]) == 2, "each artifact fits one board"
    here, there = done.json["results"]
    assert [result["board"]["key"] for result in (here, there)] == ["here", "arm"]
    assert (there["unit"], there["emulated"], there["latency_ms"]) == ("instructions", True, None)
    counts = there["instructions"]
    assert counts["p90"] < 1.05 * counts["min"] and 0 < there["layers_sum"] < counts["median"]
    assert [layer["name"] for layer in here["layers"]] == [layer["name"] for layer in there["layers"]]
    assert here["accuracy"] == there["accuracy"]
    assert there["warnings"] == []

    binary = there["against"]["layers"][1]["times"]
    assert binary["bibench_tvm"]["unit"] == binary["TVM topi bit-serial"]["unit"] == "instructions"
    assert binary["TVM topi bit-serial"]["ratio"] > 1
    elsewhere = binary["ONNX Runtime fp32"]
    assert (elsewhere["unit"], elsewhere["place"], elsewhere["ratio"]) == ("ms", "this machine", None)
    assert here["against"]["layers"][1]["times"]["ONNX Runtime fp32"]["place"] == "board"
    assert "executed instructions" in (tmp_path / "out/against-2.svg").read_text()

    shown = next(line for line in done.stderr.splitlines() if line.startswith("latency, median"))
    assert re.fullmatch(r"latency, median +[\d.]+ ms +-", shown.strip())


def test_a_board_that_is_not_there(
    invoke: Callable, bench: Callable, tracker: str, from_file: Artifact
) -> None:
    missing = "has no board with the key 'pi'. It has 'arm', 'here'."
    alone = invoke("bench", from_file.folder, "--board", "pi", "--tracker", tracker, "--json")
    assert alone.code == 1
    assert missing in alone.json["error"]
    beside = bench(from_file.folder, "--board", "pi")
    assert beside.code == 1
    assert [result["board"]["key"] for result in beside.json["results"]] == ["here"]
    assert missing in beside.json["failed"][0]
    assert beside.json["complete"] is False
