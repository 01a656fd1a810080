"""Damaged and hostile files: what becomes of them is a network or one sentence, soon and in little memory.

`python -m tests.fuzz --kind onnx --count 1000` mutates seeds, reads each in a process of its own under limits
of time and memory, and writes what went wrong beside the mutated file. One seed gives the same files again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import pickletools
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

KINDS = ("onnx", "pt2", "checkpoint", "manifest", "npy")
SECONDS = 60.0
BYTES = 2 << 30
_HARD_LIMIT = 6 << 30  # for the machine's sake: beyond it an allocation fails
_NESTED = 100_000

# ---- mutations


def mutated(kind: str, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One seed with one to three mutations: of its bytes, or of what its format is made of."""
    data = rng.choice(seeds)
    aware: dict[str, Callable[[bytes, random.Random], bytes]] = {
        "onnx": _onnx,
        "pt2": _archive,
        "checkpoint": _archive,
        "manifest": _json,
        "npy": _npy,
    }
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(Exception):  # what an earlier mutation made unreadable takes no finer one
            if rng.random() < 0.75:
                data = aware[kind](data, rng)
                continue
        data = _bytes(data, rng, seeds)
    return data


def _bytes(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    if not data:
        return rng.randbytes(8)
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
    before, part, after = data[:start], data[start:end], data[end:]
    other = rng.choice(others or (data,))
    cut = rng.randrange(len(other)) if other else 0
    way = rng.choice(("flip", "cut", "drop", "repeat", "insert", "splice", "extreme"))
    if way == "flip":
        return before + bytes([part[0] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
    if way == "cut":
        return before
    if way == "drop":
        return before + after
    if way == "repeat":
        return before + part * rng.choice((2, 3, 100)) + after
    if way == "insert":
        return before + rng.randbytes(rng.choice((1, 4, 100))) + part + after
    if way == "splice":
        return before + other[cut : cut + rng.choice((8, 100, 10_000))] + after
    return before + rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * len(part) + after


def _number(rng: random.Random) -> int:
    return rng.choice((0, 1, -1, 2, 3, 7, 127, 65536, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, -(2**63)))


def _value(rng: random.Random) -> Any:
    """What JSON can hold, and hardly anybody expects; _Deep stands for nesting that json cannot write."""
    return rng.choice(
        (
            None,
            True,
            "",
            "x",
            "\u0000\ud83d\ude00",
            "y" * 10_000,
            [],
            {},
            [None],
            [[]],
            {"": {}},
            -1,
            0,
            1.5,
            2**31,
            2**63,
            10**400,
            -(2**64),
            float("nan"),
            float("inf"),
            [_DEEP],
            [2**20] * 8,
            "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))",
            "Pow(Integer(2), Integer(100000000000))",
            "(" * 5000 + "1" + ")" * 5000,
            "Mul(" * 3000 + "Integer(1)" + ", Integer(3))" * 3000,
            "9**9**9**9",
            "1" * 100_000,
            "__import__('os').system('true')",
        )
    )


_DEEP = "a very deep list"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value within."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _json(data: bytes, rng: random.Random) -> bytes:
    value = json.loads(data)
    places = list(_places(value))
    if not places or rng.random() < 0.02:
        value = _value(rng)
    else:
        container, key = rng.choice(places)
        telling = [place for place in places if place[1] in ("expr_str", "shape", "sizes", "inputs", "dtype")]
        if telling and rng.random() < 0.3:
            container, key = rng.choice(telling)
            within = list(_places(container[key]))
            container, key = rng.choice(within) if within and rng.random() < 0.6 else (container, key)
        other, name = rng.choice(places)
        way = rng.choice(("value", "value", "number", "drop", "swap", "copy", "repeat"))
        if way == "number" and isinstance(container[key], int | float):
            container[key] = _number(rng)
        elif way == "drop":
            del container[key]
        elif way == "swap":
            container[key], other[name] = other[name], container[key]
        elif way == "copy":
            container[key] = json.loads(json.dumps(other[name]))
        elif way == "repeat" and isinstance(container, list):
            container += [container[key]] * rng.choice((1, 2, 50))
        else:
            container[key] = _value(rng)
    text = json.dumps(value)
    return text.replace(json.dumps(_DEEP), "[" * _NESTED + "]" * _NESTED).encode()


def _pickle(data: bytes, rng: random.Random) -> bytes:
    spans = [(op, arg, pos) for op, arg, pos in pickletools.genops(data)]
    ends = [pos for _, _, pos in spans[1:]] + [len(data)]
    numbers = [i for i, (op, _, _) in enumerate(spans) if "INT" in op.name]
    i = rng.choice(numbers) if numbers and rng.random() < 0.5 else rng.randrange(len(spans))
    start, end = spans[i][2], ends[i]
    part = data[start:end]
    j = rng.randrange(len(spans))
    other = data[spans[j][2] : ends[j]]
    way = rng.choice(("number", "number", "replace", "drop", "insert", "repeat", "call", "opcode"))
    if way == "number" and i in numbers:
        number = _number(rng)
        size = max(1, (number.bit_length() + 8) // 8)
        part = b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)
    elif way == "replace":
        part = other
    elif way == "drop":
        part = b""
    elif way == "repeat":
        part = part * rng.choice((2, 100, 5000))
    elif way == "call":  # a function of the kinds that a checkpoint may call, or not
        named, argument = rng.choice(
            (
                (b"c__builtin__\nbytearray\n", b"\x8a\x06\x00\x00\x00\x00\x00\x01"),
                (b"ccollections\nOrderedDict\n", b"K\x01"),
                (b"cbuiltins\neval\n", b"X\x03\x00\x00\x001+1"),
                (b"ctorch\nSize\n", b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"),
                (b"ctorch._utils\n_rebuild_tensor_v2\n", b"N"),
            )
        )
        part = named + argument + b"\x85R" + (part if rng.random() < 0.5 else b"")
    elif way == "opcode":
        part = (
            bytes([rng.choice(b"(.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x85\x86\x87\x8a\x8c\x94")])
            + part[1:]
        )
    else:
        part = other + part
    return data[:start] + part + data[end:]


def _archive(data: bytes, rng: random.Random) -> bytes:
    """One entry of a zip archive mutated, its checksum right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    aware = [i for i, (name, _) in enumerate(entries) if name.endswith((".json", ".pkl", ".pt"))]
    i = rng.choice(aware) if rng.random() < 0.7 else rng.randrange(len(entries))
    name, content = entries[i]
    compression = zipfile.ZIP_STORED
    way = rng.choice(("content",) * 8 + ("drop", "rename", "copy", "bomb", "compress"))
    if way == "content":
        finer = {"json": _json, "pkl": _pickle, "pt": _archive}.get(name.rpartition(".")[2], _bytes)
        if content[:2] == b"PK":
            finer = _archive
        elif b"_config.json" in name.encode() and rng.random() < 0.2:
            finer = _bytes
        content = finer(content, rng)
        entries[i] = name, content
    elif way == "drop":
        del entries[i]
    elif way == "rename":
        entries[i] = _bytes(name.encode(), rng).decode(errors="replace"), content
    elif way == "copy":
        j = rng.randrange(len(entries))
        entries[i] = name, entries[j][1]
    else:
        compression = zipfile.ZIP_DEFLATED
        if way == "bomb":
            entries[i] = name, content + bytes(rng.choice((10_000, 300_000_000)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def _npy(data: bytes, rng: random.Random) -> bytes:
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice(list(entries))
        entries[name] = _npy(entries[name], rng)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return buffer.getvalue()
    length = int.from_bytes(data[8:10], "little")
    header, rest = data[10 : 10 + length], data[10 + length :]
    said = rng.choice(
        (
            b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1099511627776), }",
            b"{'descr': '<U100000000', 'fortran_order': False, 'shape': (1,), }",
            b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
            b"{'descr': '<f4', 'fortran_order': 3, 'shape': 7, }",
            b"{'descr': '" + b"(" * 3000 + b"', 'fortran_order': False, 'shape': (2,), }",
            b"{'shape': " + b"[" * 900 + b"]" * 900 + b"}",
            b"{'shape': " + b"-" * 9000 + b"1}",
            b"9**9**9",
            _bytes(header, rng),
            _bytes(header, rng),
            header,
        )
    )
    return data[:8] + len(said).to_bytes(2, "little") + said + rest


def _onnx(data: bytes, rng: random.Random) -> bytes:
    import onnx
    from onnx import helper

    model = onnx.ModelProto()
    model.ParseFromString(data)
    graph = model.graph
    way = rng.choice(("field",) * 8 + ("expand", "dims", "nodes", "outside"))
    if way == "field":
        _field(model, rng)
    elif way == "expand":  # a constant of any size in a few bytes
        sizes = [rng.choice((1, 3, 1000, 2**16, 2**31)) for _ in range(rng.choice((1, 2, 4)))]
        shape = helper.make_tensor("sizes", onnx.TensorProto.INT64, [len(sizes)], sizes)
        graph.initializer.append(shape)
        made = helper.make_node(rng.choice(("ConstantOfShape", "Expand", "Tile")), ["sizes"], ["huge"])
        if made.op_type != "ConstantOfShape":
            graph.initializer.append(helper.make_tensor("one", 1, [1] * len(sizes), [1.0]))
            made.input[:] = ["one", "sizes"]
        end = rng.choice(graph.node)
        sums = [
            helper.make_node("ReduceSum", ["huge"], ["small"], keepdims=0),
            helper.make_node("Add", [end.output[0], "small"], ["moved"]),
        ]
        position = list(graph.node).index(end) + 1
        nodes = [*graph.node[:position], made, *sums, *graph.node[position:]]
        for node in nodes[position + 3 :]:
            node.input[:] = ["moved" if name == end.output[0] else name for name in node.input]
        del graph.node[:]
        graph.node.extend(nodes)
    elif way == "dims" and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.dims[:] = [_number(rng) for _ in range(rng.randrange(6))]
    elif way == "nodes":
        node = rng.choice(graph.node)
        other = rng.choice(graph.node)
        change = rng.choice(("repeat", "type", "input", "attributes", "drop"))
        if change == "repeat":
            graph.node.extend([node] * rng.choice((1, 100)))
        elif change == "type":
            node.op_type = rng.choice(
                (other.op_type, "Loop", "If", "Range", "Resize", "Einsum", "TopK", "Pow")
            )
        elif change == "input" and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice([*other.input, *other.output, "", "none"])
        elif change == "attributes":
            node.attribute.extend(list(other.attribute))
        else:
            graph.node.remove(node)
    elif graph.initializer:  # data of another file
        tensor = rng.choice(graph.initializer)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = rng.choice(("/etc/passwd", "../../etc/passwd", "weights.bin", "", "/dev/zero", "."))
        for key, text in ("location", place), ("offset", str(_number(rng))), ("length", str(_number(rng))):
            tensor.external_data.add(key=key, value=text)
    return model.SerializeToString()


def _field(message: Any, rng: random.Random) -> None:
    """Change one field, somewhere below."""
    fields = [pair for pair in message.ListFields() if pair[0].name != "doc_string"]
    if not fields:
        return
    field, value = rng.choice(fields)
    repeated = not hasattr(value, "SerializeToString") and hasattr(value, "__delitem__")
    if repeated and value and rng.random() < 0.1:
        way = rng.choice(("drop", "repeat", "clear"))
        if way == "drop":
            del value[rng.randrange(len(value))]
        elif way == "repeat":
            value.extend([value[rng.randrange(len(value))]] * rng.choice((1, 3, 200)))
        else:
            message.ClearField(field.name)
        return
    index = rng.randrange(len(value)) if repeated else None
    chosen = value[index] if index is not None else value
    if hasattr(chosen, "ListFields"):
        if rng.random() < 0.05:
            chosen.Clear()
        else:
            _field(chosen, rng)
        return
    new: Any = {
        int: lambda: _number(rng) if rng.random() < 0.7 else rng.randrange(20),
        float: lambda: rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))),
        str: lambda: rng.choice(("", "x", "../x", "é" * 1000, chosen[: len(chosen) // 2], chosen + "0")),
        bytes: lambda: _bytes(chosen, rng),
    }[type(chosen)]()
    with contextlib.suppress(ValueError, TypeError):  # beyond what the field can hold
        if index is None:
            setattr(message, field.name, new)
        else:
            value[index] = new


# ---- seeds


def seeds_of(kind: str, folder: Path) -> list[bytes]:
    """Whole files of a kind; for a manifest, `folder` becomes an artifact."""
    return cast(list[bytes], globals()[f"_{kind}_seeds"](folder))


def _network() -> Any:
    import torch

    import trainers

    torch.manual_seed(0)
    layers = torch.nn
    body = [layers.Conv2d(3, 8, 3, padding=1), layers.BatchNorm2d(8), layers.Conv2d(8, 8, 3, padding=1)]
    return trainers.binarize(
        layers.Sequential(
            *body, layers.Hardtanh(), layers.MaxPool2d(2), layers.Flatten(), layers.Linear(128, 4)
        ),
        "bnn",
    ).eval()


def _onnx_seeds(folder: Path) -> list[bytes]:
    import numpy as np
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper

    path = folder / "seed.onnx"
    torch.onnx.export(_network(), (torch.zeros(1, 3, 8, 8),), path, dynamo=False)
    # Functions within functions, shapes that are computed, half precision, and a constant that is expanded.
    sites = helper.make_opsetid("", 18), helper.make_opsetid("own", 1)
    inner = helper.make_function(
        "own", "Inner", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], sites[:1]
    )
    outer = helper.make_function(
        "own",
        "Outer",
        ["x"],
        ["y"],
        [helper.make_node("Inner", [a], [b], domain="own") for a, b in (("x", "m"), ("m", "y"))],
        sites,
    )
    nodes = [
        helper.make_node("Outer", ["x"], ["a"], domain="own"),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["b"]),
        helper.make_node("Expand", ["k", "s"], ["e"]),
        helper.make_node("Mul", ["b", "e"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["p"]),
        helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["p", "f"], ["y"]),
    ]
    half = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 2], [1.0, -1.0] * 4)
    constants = [
        numpy_helper.from_array(np.float32(2), "two"),
        numpy_helper.from_array(np.ones(1, "f4"), "k"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "own", [value("x", 1, [3, 4])], [value("y", 1, [3, 2])], [half, *constants]
    )
    functions = helper.make_model(graph, opset_imports=sites, functions=[inner, outer], ir_version=10)
    onnx.checker.check_model(functions)
    return [path.read_bytes(), functions.SerializeToString()]


def _pt2_seeds(folder: Path) -> list[bytes]:
    import torch

    class Sizes(torch.nn.Module):
        """Symbolic sizes in the file."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.cat([x, x[:, 1:]], 1)
            return torch.nn.functional.pad(y, (0, 2)).reshape(-1).sum() + y.mean()

    batch = torch.export.Dim("batch", min=2, max=64)
    width = torch.export.Dim("width", min=4, max=64)
    programs = [
        torch.export.export(_network(), (torch.zeros(1, 3, 8, 8),)),
        torch.export.export(Sizes(), (torch.zeros(3, 8),), dynamic_shapes={"x": {0: batch, 1: width}}),
        torch.export.export(torch.nn.Linear(4, 2).bfloat16(), (torch.zeros(1, 4, dtype=torch.bfloat16),)),
    ]
    found = []
    for program in programs:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        found.append(buffer.getvalue())
    return found


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    import torch

    import trainers

    path = folder / "seed.pt"
    small = trainers.binarize(trainers.create_model("resnet20"), "xnor")
    trainers.save_checkpoint(
        path,
        small,
        arch="resnet20",
        algorithm="xnor",
        variant="paper",
        sizes={"num_classes": 10, "in_channels": 3},
    )
    old = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    return [path.read_bytes(), path.read_bytes(), old.getvalue()]


def _manifest_seeds(folder: Path) -> list[bytes]:
    import torch

    from bibench_tvm import compile_model

    compile_model(_network(), torch.zeros(1, 3, 8, 8), out=folder)
    return [(folder / "manifest.json").read_bytes()]


def _npy_seeds(folder: Path) -> list[bytes]:
    import numpy as np

    one, several = io.BytesIO(), io.BytesIO()
    np.save(one, np.ones((2, 3), "float32"))
    np.savez(several, x=np.ones((2, 3), "float32"), y=np.arange(4))
    return [one.getvalue(), several.getvalue()]


# ---- reading one, in a process of its own


@dataclass(frozen=True)
class Outcome:
    """said: what came on standard output and error."""

    accepted: bool
    said: str
    seconds: float
    peak: int
    ended: str = ""  # how the process ended, if it did

    def faults(self) -> list[str]:
        """What is wrong with what became of a file, in words."""
        found = [self.ended] if self.ended else []
        if self.seconds > SECONDS:
            found.append(f"it took {self.seconds:.0f} s")
        if self.peak > BYTES:
            found.append(f"it took {self.peak / 2**20:.0f} MiB")
        for words in ("Traceback", "fault of the", 'File "', "terminate called"):
            if words in self.said:
                found.append(f"it said {words!r}")
        sentences = [line for line in self.said.splitlines() if line.startswith("Error: ")]
        if not (self.ended or self.accepted or len(sentences) == 1):
            found.append("it was refused without one sentence")
        return found


class Reader:
    """A process that reads files, and is started anew where one ended it."""

    def __init__(self, *, whole: bool = False, seconds: float = SECONDS):
        self._whole, self._seconds = whole, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *details: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            line = [sys.executable, "-m", "tests.fuzz", "--worker", *(["--compile"] if self._whole else [])]
            here = Path(__file__).resolve().parents[1]
            environment = {**os.environ, "PYTHONPATH": str(here)}
            self._process = subprocess.Popen(
                line, cwd=here, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it has imported all that it needs
        return self._process

    def read(self, kind: str, path: Path) -> Outcome:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        start = time.monotonic()
        process.stdin.write(json.dumps([kind, str(path)]).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._seconds + 5)
        answer = process.stdout.readline() if ready else b""
        if answer:
            return Outcome(**json.loads(answer))
        took = time.monotonic() - start
        ended = f"it ended the process ({process.wait()})" if ready else "it hung"
        self._stop()
        return Outcome(False, "", took, 0, ended)


def _work(*, whole: bool) -> None:
    """Read the files that standard input names, one line of JSON for each."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    resource.setrlimit(resource.RLIMIT_DATA, (_HARD_LIMIT, _HARD_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as scratch:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        for module in ("compiling.compiler", "importer.from_onnx.translate", "importer.from_torch.translate"):
            importlib.import_module(f"bibench_tvm.{module}")

        answers.write(b"\n")
        for line in sys.stdin:
            kind, path = json.loads(line)
            said.seek(0)
            said.truncate()
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            start = time.monotonic()
            accepted = _read(kind, Path(path), Path(scratch) if whole else None)
            seconds = time.monotonic() - start
            sys.stdout.flush()
            sys.stderr.flush()
            said.seek(0)
            outcome = Outcome(accepted, said.read().decode(errors="replace"), seconds, _peak())
            answers.write(json.dumps(vars(outcome)).encode() + b"\n")


def _peak() -> int:
    """Bytes."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _read(kind: str, path: Path, out: Path | None) -> bool:
    """Whether it is a network, as a command tells; out: compile it into this folder."""
    import typer

    from bibench_tvm.cli.console import reporting

    try:
        with reporting(as_json=False, debug=False):
            if kind == "npy":
                from bibench_tvm.cli.arrays import read_array, read_samples

                (read_samples if zipfile.is_zipfile(path) else read_array)(path)
            elif kind == "manifest":
                _run_artifact(path)
            else:
                from bibench_tvm import compile_model
                from bibench_tvm.importer import import_model

                shapes: dict[str | None, tuple[int, ...]] = {}
                for again in (True, False):
                    try:
                        if out is not None:
                            compile_model(path, out=out, input_shapes=shapes)
                        else:
                            import_model(path, input_shapes=shapes)
                        break
                    except ValueError as error:
                        if not again or "--input-shape" not in str(error):
                            raise
                        shapes = {None: (4, 8)}
    except typer.Exit:
        return False
    return True


def _run_artifact(folder: Path) -> None:
    """What `run` and `bench` do with a manifest, but for the board."""
    from bibench_tvm.artifact.artifact import load
    from bibench_tvm.measuring.measure import sample_inputs

    artifact = load(folder)
    artifact.run(*sample_inputs(artifact.record, None))


# ---- the command


def files(kind: str, count: int, seed: int, folder: Path) -> Iterator[Path]:
    """So many mutated files, one at a time: what is yielded may be changed by the next."""
    base = folder / "artifact" if kind == "manifest" else folder
    base.mkdir(parents=True, exist_ok=True)
    seeds = seeds_of(kind, base)
    for number in range(count):
        rng = random.Random(f"{kind} {seed} {number}")
        data = mutated(kind, seeds, rng)
        path = base / "manifest.json" if kind == "manifest" else folder / f"mutated-{number}.{kind}"
        path.write_bytes(data)
        yield base if kind == "manifest" else path
        if kind != "manifest":
            path.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="again for each; left out: all")
    parser.add_argument("--count", type=int, default=1000, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="begin with this file")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="where files at fault are left")
    parser.add_argument("--compile", action="store_true", help="compile what can be imported")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(whole=options.compile)
        return 0
    wrong = 0
    with Reader(whole=options.compile) as reader, tempfile.TemporaryDirectory() as folder:
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
                    kept.with_suffix(".txt").write_text(outcome.said)
                    print(f"{kept} ({hashlib.sha256(data).hexdigest()[:8]}): {'; '.join(faults)}", flush=True)
            most = f"at most {slowest:.1f} s and {largest / 2**20:.0f} MiB"
            print(f"{kind}: {options.count} files, {accepted:.0f} of them networks; {most}", flush=True)
    print(f"{wrong} files at fault")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
