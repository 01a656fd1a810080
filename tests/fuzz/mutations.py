"""What is done to a seed of each kind: to its bytes, or to what its format is made of."""

from __future__ import annotations

import contextlib
import io
import json
import pickletools
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_NESTED = 100_000


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
    header = rng.choice(
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
    return data[:8] + len(header).to_bytes(2, "little") + header + rest


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
