"""A job for tests: `python -m tests.bibench_tvm.jobs.toy_job DOES FILE`; adds a line to FILE."""

import json
import os
import sys
import time
from pathlib import Path

does, file = sys.argv[1], Path(sys.argv[2])
with file.open("a") as lines:
    lines.write(f"{does} {os.getpid()}\n")
if does == "fail":
    print(json.dumps({"error": "There is no such thing."}))
    sys.exit(2)
if does == "fall":
    print("it said this", file=sys.stderr)
    sys.exit(3)
if does == "die":
    os.kill(os.getpid(), 9)
if does.startswith("alone"):
    time.sleep(0.5)
    with file.open("a") as lines:
        lines.write(f"end {does}\n")
if does.startswith("pause"):
    time.sleep(1)
if does == "wait":
    time.sleep(60)
print(
    "not an object"
    if does == "babble"
    else json.dumps({"does": does, "threads": os.environ["OMP_NUM_THREADS"]})
)
