"""Every algorithm as a library for C: what it computes is what the artifact beside it computes, bit for bit.

`python -m tests.standalone_grid` compiles for this machine: eight algorithms in a ResNet-20, a dense network,
an FSMN and a network of several inputs and outputs, with float32 and int8 layers, at batches of 1 and 4. Each
runs on one thread and on three, on two samples. It takes a quarter of an hour; a line of JSON for each case
is appended to a file, which it goes on with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import trainers
from benchmarks.shapes import vary_batch_norms
from bibench_tvm import compile_model
from tests.bibench_tvm.compiling.c_library import Both, by_ctypes, same, samples

ALGORITHMS = ("bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda")
FLOAT_LAYERS = ("float32", "int8")
BATCHES = (1, 4)
THREADS = (0, 3)  # 0: the function that takes no pool


def _dense(algorithm: str) -> nn.Module:
    layers: list[nn.Module] = []
    for taken, given in itertools.pairwise((70, 96, 130, 33)):
        layers += [nn.Linear(taken, given, bias=False), nn.BatchNorm1d(given)]
    return trainers.binarize(nn.Sequential(*layers, nn.Linear(33, 10)), algorithm)


def _known(name: str) -> Callable[[str], nn.Module]:
    return lambda algorithm: trainers.binarize(trainers.create_model(name), algorithm)


# How it is made, and the shapes of one sample's inputs.
NETWORKS: dict[str, tuple[Callable[[str], nn.Module], list[tuple[int, ...]]]] = {
    "resnet20@small": (_known("resnet20@small"), [(3, 32, 32)]),
    "dense": (_dense, [(70,)]),
    "fsmn@small": (_known("fsmn@small"), [(1, 32, 32)]),
    "several inputs and outputs": (Both, [(3, 8, 8), (19,)]),
}


def identical(network: str, algorithm: str, float_layers: str, batch: int) -> bool:
    """Whether the library computes what the artifact does, in every bit of every output."""
    torch.manual_seed(0)
    make, shapes = NETWORKS[network]
    model = make(algorithm)
    vary_batch_norms(model)
    inputs = tuple(torch.zeros(batch, *shape) for shape in shapes)
    with tempfile.TemporaryDirectory() as folder:
        artifact = compile_model(model.eval(), inputs, out=folder, standalone=True, float_layers=float_layers)
        return all(
            same(by_ctypes(artifact, given, threads), artifact.run(*given))
            for given in samples(artifact)
            for threads in THREADS
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.standalone_grid", description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="again for each; left out: all")
    parser.add_argument("--algorithm", choices=ALGORITHMS, action="append", help="likewise")
    parser.add_argument("--out", type=Path, default=Path("standalone_grid.jsonl"), help="is gone on with")
    options = parser.parse_args()
    cases = itertools.product(
        options.network or NETWORKS, options.algorithm or ALGORITHMS, FLOAT_LAYERS, BATCHES
    )
    wanted = [dict(zip(("network", "algorithm", "float_layers", "batch"), c, strict=True)) for c in cases]
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {_name(found): found["identical"] for found in map(json.loads, lines)}
    for number, case in enumerate(wanted, 1):
        if _name(case) not in done:
            start = time.monotonic()
            done[_name(case)] = identical(**case)
            found = {**case, "identical": done[_name(case)], "seconds": round(time.monotonic() - start, 1)}
            with options.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
        says = "identical" if done[_name(case)] else "DIFFERENT"
        print(f"{number}/{len(wanted)} {_name(case)}: {says}", flush=True)
    count = sum(done[_name(case)] for case in wanted)
    print(f"{count} of {len(wanted)} identical")
    return int(count < len(wanted))


def _name(case: dict[str, Any]) -> str:
    return f"{case['network']}, {case['algorithm']}, {case['float_layers']}, batch {case['batch']}"


if __name__ == "__main__":
    sys.exit(main())
