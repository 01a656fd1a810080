"""A graph of jobs: what is done stays done, what fails says why, and nothing is left behind."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

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
    began = [line.split()[0] for line in log.read_text().splitlines()]
    assert began.index("first") < began.index("second") < began.index("third")

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


def test_any_graph_runs_each_job_once_after_what_it_needs(tmp_path: Path) -> None:
    random.seed(0)
    log = tmp_path / "log"
    names = [f"job{index}" for index in range(12)]
    jobs = [job(n, log, *random.sample(names[:i], min(i, random.randrange(3)))) for i, n in enumerate(names)]
    random.shuffle(jobs)
    assert set(states(run_jobs(jobs, tmp_path / "jobs", cores=3)).values()) == {"done"}
    began = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(began) == sorted(names)
    assert all(began.index(need) < began.index(one.name) for one in jobs for need in one.needs)


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
