"""The number of threads changes the time and nothing else; later runs take no new memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from bibench_tvm.artifact.artifact import Artifact

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


def test_threads_and_memory(artifact: Artifact) -> None:
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, str(artifact.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results, threads, faults = json.loads(done.stdout)
    assert threads == [1, 2]
    np.testing.assert_array_equal(*results)
    assert np.median(faults[10:]) == 0, "a page that is touched for the first time faults"


def test_refuses_a_count_that_cannot_run(invoke: Callable, artifact: Artifact) -> None:
    result = invoke("run", artifact.folder, "--input", "x", "--output", "y", "--threads", 10**6)
    assert result.code == 2
    assert "1000000 threads were asked for; from 1 to " in " ".join(result.stderr.split())


def test_one_thread_wakes_no_pool(artifact: Artifact) -> None:
    """Left to itself, TVM would wake one for each kernel."""
    code = "import os, sys; from bibench_tvm.artifact.artifact import load_vm; load_vm(sys.argv[1]); "
    code += "print(os.environ['TVM_NUM_THREADS'])"
    environment = {k: v for k, v in os.environ.items() if k not in ("TVM_NUM_THREADS", "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", code, str(artifact.folder / "model.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert 1 <= int(done.stdout) <= len(os.sched_getaffinity(0))
