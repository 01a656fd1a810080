"""Results of every track, made here: small, with seeds, boards, corruptions and layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bibench_tvm.tracks.results import Figure, Key, Kind, Layer, Result, write

ALGORITHMS = ("fp32", "bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda")
PROCESSOR = {"processor": "A processor", "cores": 4, "system": "Linux x86_64"}
LIMITS = {"binary_products_per_s": 2_000_000_000_000, "float_products_per_s": 60_000_000_000}


def made(
    track: Any,
    task: str,
    arch: str,
    algorithm: str,
    figures: dict[str, tuple[float, str, Kind]],
    *,
    layers: list[Layer] | None = None,
    machine: dict[str, str | int] = PROCESSOR,
    **key: Any,
) -> Result:
    return Result(
        key=Key(track=track, task=task, arch=arch, algorithm=algorithm, **{"profile": "standin"} | key),
        figures=[Figure(name=n, value=v, unit=u, kind=k) for n, (v, u, k) in figures.items()],
        layers=layers or [],
        command=["bibench_tvm.train", "--task", task, "--arch", arch, "--algorithm", algorithm],
        versions={"torch": "2.13.0", "python": "3.11.2"},
        commit="a" * 40,
        machine=machine,
        conditions={"load_average": 1.0},
        ended="2026-03-01T12:00:00+00:00",
        seconds=12.5,
    )


def layers(speed: float) -> list[Layer]:
    first = Layer(
        name="conv1",
        op="conv2d",
        binarized=False,
        reason="it is the first layer",
        macs=10_000_000,
        bytes=50_000,
        cost=1e-3 * speed,
        alone={"bibench_tvm": 1.1e-3 * speed, "ONNX Runtime fp32": 1.5e-3 * speed},
    )
    inner = [
        Layer(
            name=f"layer{i}.conv",
            op="conv2d",
            binarized=True,
            macs=100_000_000 * i,
            bytes=40_000,
            cost=2e-4 * i * speed,
            alone={"bibench_tvm": 3e-4 * i * speed, "ONNX Runtime fp32": 4e-3 * i * speed},
        )
        for i in range(1, 5)
    ]
    last = msgspec.structs.replace(
        first, name="fc", op="linear", reason="it is the head", macs=5_000, bytes=9_000
    )
    return [first, *inner, last]


def everything() -> Iterator[Result]:
    for place, algorithm in enumerate(ALGORITHMS):
        lost = 0.02 * place
        for task, arch, seeds in (
            ("fashion_mnist", "resnet20@small", (0, 1, 2)),
            ("standin_text", "bert_tiny4@small", (0,)),
            ("cifar10", "resnet18", (0,)),
        ):
            kind: Kind = "stand-in" if task.startswith("standin") else "measured"
            for seed in seeds:
                score = 0.9 - lost - 0.004 * seed * (place + 1)
                trained = {"accuracy": (score, "1", kind)}
                settings = {"epochs": "8"}
                for track in ("learning_task", "architecture"):
                    yield made(track, task, arch, algorithm, trained, seed=seed, settings=settings)  # type: ignore[arg-type]
        sets: dict[str, Any] = {
            f"{name}/{severity}: accuracy": (0.85 - lost * 1.5 - 0.05 * severity, "1", "stand-in")
            for name in ("fog", "frost", "gaussian_noise")
            for severity in range(1, 6)
        }
        took: dict[str, Any] = {"train_seconds": (60.0 + 9 * place, "s", "measured")}
        yield made("training", "fashion_mnist", "resnet20@small", algorithm, took, device="host", threads=1)
        where = {"seed": 0, "settings": {"epochs": "8"}, "corruption": "standin_corruptions"}
        yield made("corruption", "fashion_mnist", "resnet20@small", algorithm, sets, **where)
        for optimizer, rates in (("sgd", (0.1, 0.01)), ("adam", (0.001, 0.0001))):
            for rate in rates:
                for schedule in ("cosine", "step"):
                    for seed in (0, 1):
                        value = 0.8 - lost - (0.02 * place if rate in (0.01, 0.0001) else 0) + 0.01 * seed
                        varied = {"optimizer": optimizer, "lr": f"{rate:g}", "schedule": schedule}
                        own: dict[str, Any] = {"accuracy": (value, "1", "measured")}
                        yield made(
                            *("training", "fashion_mnist", "resnet20@small", algorithm, own),
                            seed=seed,
                            settings=varied,
                            division="open",
                        )
        for arch in ("resnet18", "bert_tiny4"):
            counted: dict[str, Any] = {"parameters": (11e6, "1", "model")}
            if algorithm != "fp32":
                counted |= {
                    "compression": (13.0 - lost, "1", "model"),
                    "speedup": (15.0 + place, "1", "model"),
                }
            yield made("complexity", "", arch, algorithm, counted)
        for device, speed, unit in (
            ("host", 1.0, "s"),
            ("rpi4b", 8.0, "s"),
            ("qemu-a72", 1e9, "instructions"),
        ):
            run = 0.02 if algorithm == "fp32" else 0.003 + 0.0004 * place
            kind = "emulated" if unit != "s" else "measured"
            ran: dict[str, Any] = {
                "latency": (run * speed, unit, kind),
                "size": (9e5 / (place + 1), "B", "measured"),
            }
            yield made(
                *("inference", "fashion_mnist", "resnet20@small", algorithm, ran),
                layers=layers(speed * (20 if algorithm == "fp32" else 1 + lost)),
                machine=PROCESSOR | LIMITS if device == "host" else PROCESSOR,
                seed=0,
                settings={"epochs": "8"},
                device=device,
                threads=1,
                library="bibench_tvm",
            )

    for name, error in (("cnn", 0.65), ("transformer", 1.07), ("mlp", 0.92)):
        yield made("architecture", "structure", name, "bnn", {"error": (error, "1", "measured")})


def folder_of_everything(folder: Path) -> Path:
    for result in everything():
        write(folder, result)
    return folder
