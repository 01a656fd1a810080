"""Tuning over adb and ssh: as over a tracker, and whatever becomes of the device, no trial is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schedules.records import records
from tests.bibench_tvm.test_tune import trials_in
from tests.rpc.devices.stand_in import HOST, SERIAL, count_instructions


def test_by_instructions_the_schedules_are_those_of_a_tracker(
    invoke: Callable, small_file: Path, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nearly all candidates: what a call costs differs by what calls it and gives it memory, and costs
    decide which is tried next."""
    count_instructions("cortex-a72", monkeypatch)
    costs, best = [], []
    for name, options in ("tracker", ["--target", "rpi4b"]), ("device", ["--board", SERIAL]):
        line = ["tune", small_file, *options, "--trials", 12, "--no-model-cycles", "--json"]
        done = invoke(*line, "--out", tmp_path / name)
        assert done.code == 0 and done.json["unit"] == "instructions", done.stderr
        costs.append({tile: cost for _, tile, cost, _ in trials_in(tmp_path / name)})
        written = records.read(tmp_path / name / records.FILE).best
        best.append({task: record.tile for task, record in written.items()})
    assert best[0] == best[1] and best[0]
    both = costs[0].keys() & costs[1].keys()
    assert len(costs[0]) == len(costs[1]) == 12 and len(both) >= 10
    assert all(0 <= costs[0][tile] - costs[1][tile] < 1000 < costs[1][tile] for tile in both)
    assert list(phone.iterdir()) == [], "nothing is left there"


def test_by_time_and_with_a_device_that_is_lost(
    invoke: Callable, small_file: Path, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [
        "tune",
        small_file,
        "--board",
        SERIAL,
        "--target",
        "kirin980",
        "--out",
        tmp_path / "out",
        "--json",
    ]
    done = invoke(*line, "--trials", 2)
    assert done.code == 0 and done.json["unit"] == "seconds", done.stderr
    before = trials_in(tmp_path / "out")
    assert len(before) == 2 and all(cost > 0 for _, _, cost, _ in before)
    with monkeypatch.context() as there:
        there.setenv("PHONE_LOST", "1")
        done = invoke(*line, "--trials", 4)
        assert done.code == 1 and "ended before the work did." in done.json["error"]
    assert trials_in(tmp_path / "out") == before
    done = invoke(*line, "--trials", 4)
    assert (done.json["trials"], done.json["measured"]) == (4, 2)
    assert set(before) <= set(trials_in(tmp_path / "out"))


def test_a_host_with_the_processor_of_this_machine(
    invoke: Callable, small_file: Path, login: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it is found to have, so that no --target is asked for."""
    monkeypatch.setenv("HOST_IS_HERE", "1")
    done = invoke("tune", small_file, "--board", HOST, "--trials", 2, "--out", tmp_path / "out", "--json")
    assert done.code == 0 and "The target is host" in done.stderr, done.stderr
    assert (done.json["unit"], done.json["measured"]) == ("seconds", 2)
    (kernel,) = done.json["kernels"]
    assert kernel["default"] > 0 and kernel["library"] > 0 and kernel["failed"] == {}
    assert list(login.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--board", "adb:"], 2, "'adb:' names no device: write adb:SERIAL"),
        (["--board", HOST], 1, "The device ssh:me@host cannot be reached: it does not answer."),
        (["--board", SERIAL, "--target", "host"], 2, "The board 'adb:R5CT20ABC' is aarch64, and host is"),
        (["--board", SERIAL, "--target", "kirin980"], 2, "lacks dotprod, fullfp16, which kirin980 takes."),
    ],
)
def test_what_cannot_be_tuned(
    invoke: Callable,
    small_file: Path,
    phone: Path,
    login: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.setenv("DEVICE_CPU", "cortex-a72")
    monkeypatch.setenv("SSH_SAYS", "ssh: connect to host host port 22: Connection timed out")
    done = invoke("tune", small_file, *options, "--out", tmp_path / "out", "--json")
    assert done.code == code and sentence in done.json["error"], done.json
    assert not (tmp_path / "out").exists()
