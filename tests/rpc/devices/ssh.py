"""Stands in for ssh: a host whose programs run under QEMU.

HOST_FOLDER: its $TMPDIR; HOST_IS_HERE: it has the processor of this machine; SSH_SAYS: with what ssh fails.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from under_qemu import on_arm, wrap

if words := os.environ.get("SSH_SAYS"):
    print(words, file=sys.stderr)
    sys.exit(255)
host, line = sys.argv[sys.argv.index("--") + 1 :]
assert host == "me@host" and "BatchMode=yes" in sys.argv
folder = os.environ["HOST_FOLDER"]
assert line.startswith("exec sh -c ")
(there,) = shlex.split(line)[3:]
is_here = "HOST_IS_HERE" in os.environ
line = there if is_here else on_arm(there)
done = subprocess.run(["sh", "-c", line], env={**os.environ, "TMPDIR": folder})
for program in Path(folder).glob("bibench-*/*") if not is_here else ():
    wrap(program)
sys.exit(done.returncode)
