"""Jobs on a Ray cluster of two nodes on this machine, one of which is killed."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster as LocalCluster

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.jobs.cluster import Cluster, ray_cluster
from bibench_tvm.jobs.engine import run_jobs
from bibench_tvm.jobs.job import Job, Outcome
from tests.bibench_tvm.jobs.test_engine import TOY, job, states


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    found = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def cluster(local: Any) -> Iterator[Cluster]:
    with ray_cluster(local.address) as found:
        yield found


def test_a_node_is_killed(local: Any, cluster: Cluster, tmp_path: Path) -> None:
    """All jobs are done, those that were by then once, and the others at most once more."""
    node = local.add_node(num_cpus=1)
    log = tmp_path / "log"
    jobs = [job(f"pause{i}", log) for i in range(6)]
    jobs += [Job(name="alone", command=[TOY, "alone", str(log)], alone=True), job("fail", log)]
    jobs.append(job("after", log, "fail"))
    before: list[str] = []

    def advance(outcome: Outcome) -> None:
        before.append(outcome.name)
        if len(before) == 2:
            local.remove_node(node, allow_graceful=False)

    outcomes = run_jobs(jobs, tmp_path / "jobs", cores=1, cluster=cluster, advance=advance)
    expected = {one.name: "done" for one in jobs} | {"fail": "failed", "after": "blocked"}
    assert states(outcomes) == expected
    began = Counter(line.split()[0] for line in log.read_text().splitlines() if not line.startswith("end"))
    assert all(began[name] == 1 for name in before[:2])
    assert max(began.values()) <= 2 and sum(began.values()) <= len(jobs) - 1 + 2
    assert states(run_jobs(jobs, tmp_path / "jobs", cores=1, cluster=cluster)) == expected
    assert Counter(line.split()[0] for line in log.read_text().splitlines())["pause0"] == began["pause0"]


def test_a_job_is_asked_to_stop(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    future = cluster.submit(job("wait", log), "x", tmp_path / "jobs")
    while not log.exists():
        pass
    cluster.stop()
    assert future.result(timeout=30).state == "stopped"


def test_there_is_none() -> None:
    with pytest.raises(BibenchError, match="There is no Ray cluster at nowhere"), ray_cluster("nowhere"):
        pass
