"""Damaged and hostile files: what becomes of them is a network or one sentence, soon and in little memory.

`python -m tests.fuzz --kind onnx --count 1000` mutates seeds, reads each in a process of its own under limits
of time and memory, and writes what went wrong beside the mutated file. One seed gives the same files again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from tests.fuzz.files import KINDS, files
from tests.fuzz.reader import Reader


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="again for each; left out: all")
    parser.add_argument("--count", type=int, default=1000, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="begin with this file")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="where files at fault are left")
    parser.add_argument("--compile", action="store_true", help="compile what can be imported")
    options = parser.parse_args()
    wrong = 0
    with Reader(compiling=options.compile) as reader, tempfile.TemporaryDirectory() as folder:
        for kind in options.kind or KINDS:
            accepted = slowest = largest = 0.0
            for number, path in enumerate(files(kind, options.count, options.seed, Path(folder))):
                if number < options.first:
                    continue
                outcome = reader.read(kind, path)
                accepted += outcome.accepted
                slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak)
                if faults := outcome.faults():
                    wrong += 1
                    options.keep.mkdir(parents=True, exist_ok=True)
                    kept = options.keep / f"{kind}-{options.seed}-{number}"
                    data = (path / "manifest.json" if path.is_dir() else path).read_bytes()
                    kept.write_bytes(data)
                    kept.with_suffix(".txt").write_text(outcome.output)
                    print(f"{kept} ({hashlib.sha256(data).hexdigest()[:8]}): {'; '.join(faults)}", flush=True)
            most = f"at most {slowest:.1f} s and {largest / 2**20:.0f} MiB"
            print(f"{kind}: {options.count} files, {accepted:.0f} of them networks; {most}", flush=True)
    print(f"{wrong} files at fault")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
