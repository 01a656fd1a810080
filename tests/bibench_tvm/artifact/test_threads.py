"""The number of threads changes the time and nothing else; later runs take no new memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from bibench_tvm import compile_model
from bibench_tvm.artifact import threads, trying
from bibench_tvm.artifact.artifact import Artifact
from rpc import machine

IN_A_PROCESS_OF_ITS_OWN = """
import json, os, resource, sys
import numpy as np, tvm_ffi
from bibench_tvm.artifact.threads import run_where_threads_are
from bibench_tvm import BibenchError, load
artifact = load(sys.argv[1])
x = np.random.default_rng(0).standard_normal((8, *artifact.manifest["inputs"][0]["shape"][1:]), np.float32)
results, threads = [], []
for count in (1, 2):
    results.append(load(sys.argv[1], threads=count).run(x).tolist())
    # On one thread TVM uses no pool; asked for its size, it would make one.
    if count == 1:
        threads.append(int(os.environ["TVM_NUM_THREADS"]))
    else:
        threads.append(run_where_threads_are(tvm_ffi.get_global_func("runtime.NumThreads")))
faults = []
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    artifact.run(x[:1])
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps([results, threads, faults]))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network with a kernel that is worth a second thread everywhere: it reads 2 MB of weights."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2048))
    out = tmp_path_factory.mktemp("shared")
    return compile_model(network, torch.zeros(1, 4, 8, 8), target="host", out=out)


def test_threads_and_memory(shared: Artifact) -> None:
    assert shared.record.shared_kernels == 1
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, str(shared.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results, threads, faults = json.loads(done.stdout)
    assert threads == [1, 2]
    np.testing.assert_array_equal(*results)
    assert np.median(faults[10:]) == 0, "a page that is touched for the first time faults"


def test_where_no_kernel_is_worth_it_one_thread_does_all(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_wanted", 2)
    monkeypatch.setattr(threads, "_runner", None)
    x = np.zeros((1, 4, 8, 8), np.float32)
    assert artifact.record.shared_kernels == 0
    expected = artifact.run(x)
    assert threads._runner is None
    before = msgspec.structs.replace(artifact.record, shared_kernels=msgspec.UNSET)  # of an older artifact
    np.testing.assert_array_equal(Artifact(artifact.folder, before, artifact._library).run(x), expected)
    assert threads._runner is not None


def test_refuses_a_count_that_cannot_run(invoke: Callable, artifact: Artifact) -> None:
    result = invoke("run", artifact.folder, "--input", "x", "--output", "y", "--threads", 1000)
    assert result.code == 2
    assert "1000 threads were asked for; from 1 to " in " ".join(result.stderr.split())


NOBODY_SAYS = """
import os, signal, sys, threading
import numpy as np
from rpc import machine
machine.fast_cores = lambda: 2
from bibench_tvm import load
from bibench_tvm.artifact import trying
artifact, fork_early = load(sys.argv[1]), load(sys.argv[1])
x = np.random.default_rng(0).standard_normal((8, 1, 4, 8, 8), np.float32)
expected = [fork_early.run(each) for each in x]
def run(artifact, i):
    assert all(np.array_equal(artifact.run(x[i]), expected[i]) for _ in range(50))
def in_threads(artifact):
    threads = [threading.Thread(target=run, args=(artifact, i)) for i in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
def in_a_child(artifact):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        in_threads(artifact)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
in_a_child(fork_early)  # it has tried one thread, and not yet two
in_threads(artifact)
assert artifact._trial._chosen in (1, 2)
in_a_child(artifact)
# Two networks of one process on different numbers, however the measurements came out.
artifact._trial._chosen, fork_early._trial._chosen = 1, 2
in_a_child(artifact), in_a_child(fork_early), in_threads(fork_early)
before = len(os.listdir("/proc/self/task"))
for _ in range(4):
    in_threads(artifact)
assert len(os.listdir("/proc/self/task")) <= before + 1, "a pool was made for one thread"
assert not {"TVM_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys()
"""


def test_what_nobody_says_is_tried_in_threads_and_across_forks(shared: Artifact) -> None:
    unsaid = {k: v for k, v in os.environ.items() if k not in ("TVM_NUM_THREADS", "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", NOBODY_SAYS, str(shared.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=unsaid)
    assert done.returncode == 0, done.stderr


class Network:
    """One whose runs take so many seconds on one thread and on four, and 7 more when it is run first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, one: float, many: float):
        self.takes, self.asked, self.now = {1: one, 4: many}, list[int](), 0.0
        monkeypatch.setattr(trying, "run_on", self.run_on)
        monkeypatch.setattr(trying.time, "perf_counter", lambda: self.now)

    def run_on(self, count: int, work: Callable[[], Any]) -> Any:
        self.asked.append(count)
        return work()

    def run(self, parts: Sequence[int]) -> list[int]:
        count = self.asked[-1]
        self.now += len(parts) * self.takes[count] + 7 * (self.asked.count(count) == 1)
        return [-part for part in parts]


def turns(runs: int, rounds: int) -> list[int]:
    return ([1] * runs + [4] * runs) * rounds


@pytest.mark.parametrize(
    ("one", "many", "tried", "chosen"),
    [
        (0.1, 0.06, turns(3, 3), 4),  # one to get ready and two on each, three times
        (0.1, 0.2, turns(3, 1), 1),
        (0.1, 0.097, turns(3, 1), 1),  # not worth three more cores
        (1e-4, 2e-4, turns(11, 1), 1),  # short ones are timed more often
        (1e-4, 0.5e-4, turns(11, 3), 4),
    ],
)
def test_the_faster_number_is_kept(
    monkeypatch: pytest.MonkeyPatch, one: float, many: float, tried: list[int], chosen: int
) -> None:
    network, trial = Network(monkeypatch, one, many), trying.Trial(4)
    assert trial.call(network.run, range(2)) == [0, -1]
    assert trial.call(network.run, range(100)) == [-i for i in range(100)]
    assert trial.call(network.run, [5]) == [-5]
    assert network.asked[: len(tried)] == tried
    assert set(network.asked[len(tried) :]) == {chosen}


def test_several_threads_have_to_be_faster_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was busy in the first round is not in the second."""
    network, trial = Network(monkeypatch, 0.2, 0.15), trying.Trial(4)
    trial.call(network.run, range(6))
    network.takes[1] = 0.1
    trial.call(network.run, range(10))
    assert network.asked == [*turns(3, 2), 1]  # and then the rest of the batch at once


def test_several_threads_that_come_to_take_longer_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network, trial = Network(monkeypatch, 0.1, 0.06), trying.Trial(4)
    trial.call(network.run, range(30))
    for slow in (4, 1, 4):  # one fast run in between is enough to go on
        network.takes[4] = 0.3
        trial.call(network.run, range(slow))
        network.takes[4] = 0.06
        trial.call(network.run, range(1))
    assert trial.threads() == 4
    network.takes[4] = 0.11
    trial.call(network.run, range(5))
    assert trial.threads() == 1


def test_results_that_come_late_are_of_no_turn() -> None:
    trial = trying.Trial(4)
    trial._runs += [(1, 9.0), (1, 0.1), (1, 0.1), (1, 0.1), (4, 9.0), (1, 0.1), (4, 0.05)]
    assert trial._turns() == [[9.0, 0.1, 0.1], [9.0, 0.05]] and trial.threads() == 4


def test_on_one_core_nothing_is_tried() -> None:
    assert trying.Trial(1).threads() == 1


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, None),
        ({"TVM_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"TVM_NUM_THREADS": "2", "OMP_NUM_THREADS": "4"}, 2),
        ({"TVM_NUM_THREADS": "many"}, 1),
    ],
)
def test_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], count: int | None
) -> None:
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "_wanted", None)
    assert threads.said() == count


def test_the_fast_cores_of_a_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 2.84 GHz, three of 2.42, four of 1.8; and then a processor with two threads a core."""
    clocks = dict(enumerate([1785600] * 4 + [2419200] * 3 + [2841600]))
    siblings: dict[int, str] = {}

    def read(path: Path) -> str | None:
        cpu = int(path.parts[5].removeprefix("cpu"))
        found = clocks.get(cpu) if path.name == "cpuinfo_max_freq" else siblings.get(cpu)
        return None if found is None else str(found)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "_read", read)
    assert machine.fast_cores() == 4
    clocks.clear()
    assert machine.fast_cores() == 8  # nothing is known
    siblings.update({cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)})
    assert machine.fast_cores() == 4
