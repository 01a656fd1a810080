"""A graph of jobs: what is done stays done, what fails says why, and nothing is left behind."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.jobs.engine import run_jobs
from bibench_tvm.jobs.job import Job, Outcome

TOY = "tests.bibench_tvm.jobs.toy_job"


def job(does: str, log: Path, *needs: str, name: str = "") -> Job:
    return Job(name=name or does, command=[TOY, does, str(log)], needs=list(needs))


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.state for outcome in outcomes}


def test_a_graph_with_failures(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [
        job("third", log, "second"),
        job("second", log, "first"),
        job("first", log),
        job("fail", log),
        job("after", log, "fail", "first"),
        job("later", log, "after"),
        *(job(does, log) for does in ("fall", "die", "babble")),
    ]
    seen: list[str] = []
    outcomes = run_jobs(jobs, tmp_path / "jobs", cores=2, advance=lambda outcome: seen.append(outcome.name))
    assert [outcome.name for outcome in outcomes] == [job.name for job in jobs]
    assert sorted(seen) == sorted(job.name for job in jobs)
    by_name = {outcome.name: outcome for outcome in outcomes}
    assert by_name["third"].result == {"does": "third", "threads": "1"}
    assert by_name["fail"].reason == "There is no such thing."
    assert by_name["after"].reason == "it needs fail, which is failed: There is no such thing."
    assert by_name["later"].reason == f"it needs after, which is blocked: {by_name['after'].reason}"
    assert by_name["die"].reason == "it was killed by SIGKILL"
    assert by_name["babble"].reason == "it printed no JSON object"
    words = tmp_path / "jobs/fall/job.log"
    assert by_name["fall"].reason == f"it ended with the exit code 3; {words} has what it said"
    assert words.read_text() == "it said this\n"
    order = [line.split()[0] for line in log.read_text().splitlines()]
    assert order.index("first") < order.index("second") < order.index("third")

    log.unlink()
    again = run_jobs(jobs, tmp_path / "jobs", cores=2)
    assert states(again) == states(outcomes)
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"fail", "fall", "die", "babble"}


def test_a_job_with_another_command_is_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_jobs([job("one", log, name="x")], tmp_path / "jobs", cores=1)
    (outcome,) = run_jobs([job("two", log, name="x")], tmp_path / "jobs", cores=1)
    assert outcome.result["does"] == "two"
    (tmp_path / "jobs/x/job.json").write_text("{")
    run_jobs([job("two", log, name="x")], tmp_path / "jobs", cores=1)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["one", "two", "two"]


def began(log: Path) -> list[str]:
    """What ran since this was asked last."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line.split()[0] for line in lines]


def laid_in(folder: Path, log: Path, own: Path) -> list[Job]:
    """Two jobs that name files in the folder, and one from outside of which the content matters."""
    words = [str(folder.absolute() / "a/made"), "--mine", str(own)]
    first = Job(name="a", command=[TOY, "first", str(log), *words], outside={str(own): "its digest"})
    return [first, Job(name="b", command=[TOY, "second", str(log), words[0]], needs=["a"])]


def test_a_folder_that_is_moved_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, here, there = tmp_path / "log", tmp_path / "here/jobs", tmp_path / "there/jobs"
    run_jobs(laid_in(here, log, tmp_path / "own.py"), here, cores=1)
    assert began(log) == ["first", "second"]
    shutil.copytree(here, there)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))  # the jobs' module is found from here alone
    monkeypatch.chdir(tmp_path)
    for folder, own in ((there, "own.py"), (Path("there/jobs"), "own.py"), (there, "elsewhere/mine.py")):
        outcomes = run_jobs(laid_in(folder, log, tmp_path / own), folder, cores=1)
        assert set(states(outcomes).values()) == {"done"} and began(log) == []
    (there / "b/job.json").unlink()
    run_jobs(laid_in(there, log, tmp_path / "own.py"), there, cores=1)
    assert began(log) == ["second"]
    for name in "ab":
        assert str(tmp_path / "here") not in (there / name / "job.json").read_text()
    other = msgspec.structs.replace(laid_in(there, log, tmp_path / "own.py")[0], outside={})
    run_jobs([other], there, cores=1)
    assert began(log) == ["first"]


def test_a_folder_from_before(tmp_path: Path) -> None:
    """Identities were of commands with absolute paths; wherever it lies now, what is in it is done."""
    log, own, before = tmp_path / "log", tmp_path / "own.py", tmp_path / "before"
    identities: dict[str, str] = {}
    for one in laid_in(before, log, own):
        parts = [*one.command, *map(identities.get, one.needs)]
        identities[one.name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        content = {
            "name": one.name,
            "state": "done",
            "command": one.command,
            "identity": identities[one.name],
        }
        place = before / one.name
        place.mkdir(parents=True)
        (place / "job.json").write_text(json.dumps(content | {"result": {"made": str(place / "made")}}))
    moved = shutil.copytree(before, tmp_path / "moved")
    for folder in (before, moved):
        outcomes = run_jobs(laid_in(folder, log, own), folder, cores=1)
        assert began(log) == []
        assert [outcome.identity for outcome in outcomes] == list(identities.values())
        assert [outcome.result for outcome in outcomes] == [{"made": "a/made"}, {"made": "b/made"}]
    (moved / "a/job.json").unlink()
    run_jobs(laid_in(moved, log, own), moved, cores=1)
    assert began(log) == ["first", "second"]
    changed = [msgspec.structs.replace(one, command=[*one.command, "x"]) for one in laid_in(before, log, own)]
    run_jobs(changed, before, cores=1)
    assert began(log) == ["first", "second"]


def test_any_graph_runs_each_job_once_after_what_it_needs(tmp_path: Path) -> None:
    random.seed(0)
    log = tmp_path / "log"
    names = [f"job{index}" for index in range(12)]
    jobs = [job(n, log, *random.sample(names[:i], min(i, random.randrange(3)))) for i, n in enumerate(names)]
    random.shuffle(jobs)
    assert set(states(run_jobs(jobs, tmp_path / "jobs", cores=3)).values()) == {"done"}
    order = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(order) == sorted(names)
    assert all(order.index(need) < order.index(one.name) for one in jobs for need in one.needs)


def test_no_more_at_a_time_than_cores(tmp_path: Path) -> None:
    started = time.monotonic()
    # In the timer's thread, as the kernel may choose any
    threading.Timer(3.0, signal.raise_signal, (signal.SIGINT,)).start()
    log = tmp_path / "log"
    outcomes = run_jobs([job("wait", log, name=f"w{i}") for i in range(4)], tmp_path / "jobs", cores=2)
    assert time.monotonic() - started < 20
    assert len(log.read_text().splitlines()) == 2
    assert {outcome.state for outcome in outcomes} == {"stopped"}
    assert sorted(outcome.reason for outcome in outcomes) == ["as asked"] * 2 + ["it did not start"] * 2
    for line in log.read_text().splitlines():
        assert not Path("/proc", line.split()[1]).exists()


def test_a_job_that_times_runs_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    alone = [Job(name=f"alone{i}", command=[TOY, f"alone{i}", str(log)], alone=True) for i in range(2)]
    outcomes = run_jobs([*alone, *(job(f"j{i}", log) for i in range(4))], tmp_path / "jobs", cores=3)
    assert set(states(outcomes).values()) == {"done"}
    lines = [line.split() for line in log.read_text().splitlines()]
    for i in range(2):
        at = [line[0] for line in lines].index(f"alone{i}")
        assert lines[at + 1] == ["end", f"alone{i}"]


def test_graphs_that_make_no_sense(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for jobs, sentence in [
        ([job("a", log), job("a", log)], "Two jobs cannot both be called 'a'"),
        ([job("a", log, "b")], "The job a needs b, and there is no such job"),
        ([job("a", log, "b"), job("b", log, "a")], "These jobs need each other"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            run_jobs(jobs, tmp_path / "jobs", cores=1)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        run_jobs([], tmp_path / "file" / "jobs", cores=1)


ENGINE = f"""
import sys
from pathlib import Path
from bibench_tvm.jobs.engine import run_jobs
from bibench_tvm.jobs.job import Job
folder = Path(sys.argv[1])
run_jobs([Job(name="w", command=["{TOY}", "wait", str(folder / "log")])], folder / "jobs", cores=1)
"""


def test_one_at_a_time_and_a_killed_one_takes_its_jobs_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", ENGINE, str(tmp_path)]) as engine:
        while not log.exists() or not log.read_text().endswith("\n"):
            time.sleep(0.05)
        with pytest.raises(BibenchError, match="Another process runs the jobs"):
            run_jobs([job("a", log)], tmp_path / "jobs", cores=1)
        engine.kill()
    place = Path("/proc", log.read_text().split()[1])
    for _ in range(100):
        if not place.exists():
            break
        time.sleep(0.05)
    assert not place.exists()
    assert states(run_jobs([job("a", log)], tmp_path / "jobs", cores=1)) == {"a": "done"}
