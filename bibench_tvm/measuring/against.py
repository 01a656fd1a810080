"""The layers and the network of an artifact beside what a user would run instead, on the same board.

A layer stands alone here, made anew from its geometry: floats in and floats out, each contestant in the
layout of its own (ONNX Runtime channels first, all others last). They take turns, and the ratio to ours is
taken within each turn, so that what the board does meanwhile touches both. Every output is compared with
numpy's before anything is timed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.manifest import Manifest
from bibench_tvm.cli.errors import BibenchError, UsageError, unknown
from bibench_tvm.compiling.build import build
from bibench_tvm.compiling.link import export
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import Imported
from bibench_tvm.importer.source import sizes_of
from bibench_tvm.measuring.measure import INSTRUCTIONS, MILLISECONDS, in_unit, sample_inputs, unit_of
from bibench_tvm.measuring.peers import bitserial, onnx_runtime
from bibench_tvm.measuring.peers.standalone import Standalone
from bibench_tvm.measuring.turns import Contestant, Costs, Entry, Turns, calls_within, ratios
from rpc.missing import sentence_of
from schedules.geometry import Convolution
from schedules.records.kernel_task import C, Choose, KernelTask
from schedules.records.records import choice_from_json
from schedules.targets.kernel_target import Choice

if TYPE_CHECKING:
    from rpc.session import Board

NAMES = ("topi", "onnxruntime", "default")
OURS, UNTUNED, TOPI = "bibench_tvm", "bibench_tvm untuned", "TVM topi bit-serial"
FLOAT, INT8 = "ONNX Runtime fp32", "ONNX Runtime int8"

# What an output may differ by, of its largest entry. A sign that a float layer's rounding flips is seen in
# the output of a network. 8 bits are not exact by design, and flip more signs.
_ROUNDING, _FLIPS, _QUANTIZED, _QUANTIZED_NETWORK = 1e-4, 0.1, 0.1, 1.0
_BURST_S = 0.02
_ROUNDS = 7

BOARD, HOST = "board", "this machine"


@dataclass(frozen=True)
class Source:
    """The network that an artifact was compiled from; file: where it is in one. Without a file it is of
    the same architecture, with other weights."""

    imported: Imported
    file: Path | None


@dataclass(frozen=True)
class Placed:
    """A contestant where it runs, and the unit of its costs there."""

    contestant: Contestant
    unit: str
    place: str = BOARD


def _ready(make: Callable[[], Placed]) -> Entry:
    """Makes and checks it, and sees how many calls fill a burst. Raises BibenchError."""
    placed = make()
    contestant = placed.contestant
    difference = contestant.check()
    calls = 1 if placed.unit == INSTRUCTIONS else calls_within(contestant.burst, _BURST_S)
    about = {"unit": placed.unit, "place": placed.place, "difference": difference}
    return Entry(partial(contestant.burst, calls), about)


def _contestant(
    network: Any, inputs: list[np.ndarray], expected: np.ndarray | None, tolerance: float
) -> Contestant:
    """network: has `run` and `time`; its first output is checked."""

    def burst(calls: int) -> Costs:
        return tuple(network.time(inputs, number=calls, repeat=1))

    return Contestant(lambda: network.run(inputs)[0], burst, expected, tolerance)


def parse_names(text: str) -> list[str]:
    """`topi,default` -> names of contestants. Raises UsageError."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--against names whom to compare with: {', '.join(NAMES)}.")
    for name in names:
        if name not in NAMES:
            raise unknown("contestant", name, NAMES)
    return list(dict.fromkeys(names))


def compare(
    artifact: Artifact,
    board: Board,
    names: Sequence[str],
    *,
    source: Source | None,
    threads: int,
    in_place: Mapping[str, float],
    progress: Callable[[str, int], Any],
) -> dict[str, Any]:
    """The tables of layers and of the network, as the report has them; a contestant that fails is a sentence
    there.

    in_place: what each layer costs within the network. Raises BibenchError where ours fails, and what the
    board raises.
    """
    left_out: list[str] = []
    kinds = _kinds(artifact.record, left_out)
    key = board.info.key
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(artifact, board, names, threads, Path(folder), left_out)
        layers = []
        with progress(f"{key}: against {', '.join(names)}, {len(kinds)} kinds of layers", len(kinds)) as step:
            for (conv, op, binarized), like in kinds.items():
                contest = bench.layer(Standalone(conv, op == "linear", binarized))
                about: dict[str, Any] = {"name": like[0], "like": like[1:], "op": op, "binarized": binarized}
                within = [in_place[name] for name in like if name in in_place]
                about |= {"macs": conv.macs, "in_place": median(within) if within else None}
                layers.append({**about, **contest})
                step()
        with progress(f"{key}: against {', '.join(names)}, the network", 1) as step:
            network = bench.network(source)
            step()
    return {"unit": unit_of(board), "ours": OURS, "layers": layers, "network": network, "left_out": left_out}


def _kinds(manifest: Manifest, left_out: list[str]) -> dict[tuple[Convolution, str, bool], list[str]]:
    """The layers that differ in what they compute, each with the names of all that are alike."""
    kinds: dict[tuple[Convolution, str, bool], list[str]] = {}
    without = []
    for layer in manifest.layers:
        if layer.geometry is None:
            without.append(layer.name)
            continue
        kinds.setdefault((layer.geometry, layer.op, layer.binarized), []).append(layer.name)
    if quantized := _int8(manifest):
        left_out.append(f"{', '.join(quantized)}: int8 in the artifact, and float32 where they stand alone.")
    if without:
        left_out.append(f"{', '.join(without)}: no contestant has such a layer standing alone.")
    return kinds


def _int8(manifest: Manifest) -> list[str]:
    return [layer.name for layer in manifest.layers if layer.dtype == "int8"]


def _choices(manifest: Manifest) -> dict[str, Choice]:
    """What a layer computes -> what a record of tuning chose for it. Raises BibenchError."""
    try:
        return {
            _computed(record["task"]): choice_from_json(record["task"]["kind"], record["tile"])
            for record in reversed(manifest.tuning.records)
            if "conv" in record["task"]  # else it is of no layer
        }
    except (TypeError, KeyError, ValueError) as error:
        raise BibenchError(f"The manifest is damaged: its tuned schedules make no sense ({error}).") from None


def _computed(task: Mapping[str, Any]) -> str:
    """Of a task in JSON, what is left of it where the layer stands alone."""
    return json.dumps([task["kind"], task.get("conv")], sort_keys=True)


def untuned(task: KernelTask[Any]) -> None:
    """Chooses nothing: the target's own is taken."""


class _Bench:
    """Makes contestants for one artifact on one board, and lets them take turns."""

    def __init__(
        self,
        artifact: Artifact,
        board: Board,
        names: Sequence[str],
        threads: int,
        folder: Path,
        left_out: list[str],
    ):
        self.artifact, self.board, self.threads = artifact, board, threads
        self.folder, self.left_out = folder, left_out
        self.unit = unit_of(board)
        self.target = resolve_target(artifact.record.target.name)
        self.files = 0
        self.topi = "topi" in names
        self.onnx_on_board = "onnxruntime" in names and onnx_runtime.is_on(board)
        self.onnx = self.onnx_on_board or ("onnxruntime" in names and onnx_runtime.installed())
        if "onnxruntime" in names and not self.onnx:
            left_out.append(f"ONNX Runtime is neither on the board nor here. {sentence_of('onnxruntime')}")
        elif self.onnx and not self.onnx_on_board:
            left_out.append(
                "ONNX Runtime is not on the board: its times are this machine's and have no ratio."
            )
        self.reduce_range = (
            onnx_runtime.saturates(board.info.machine, board.info.features)
            if self.onnx_on_board
            else onnx_runtime.saturates_here()
        )
        if self.onnx and self.reduce_range:
            left_out.append(
                f"{INT8} has weights of 7 bits: without VNNI its kernels saturate with 8, and are wrong."
            )
        self.choices = _choices(artifact.record)
        self.default = "default" in names and bool(self.choices)
        if "default" in names and not self.choices:
            left_out.append("default: the artifact has no tuned schedules, so ours are the defaults.")

    def layer(self, layer: Standalone) -> dict[str, Any]:
        """`times` of each contestant, and in `failed` why another has none."""
        makers: dict[str, Callable[[], Placed]] = {OURS: lambda: self._ours(layer, self._tuned)}
        if self.default:
            makers[UNTUNED] = lambda: self._ours(layer, untuned)
        if self.topi and layer.binarized:
            makers[TOPI] = lambda: self._topi(layer)
        if self.onnx:
            makers[FLOAT] = lambda: self._onnx_layer(layer, int8=False)
            makers[INT8] = lambda: self._onnx_layer(layer, int8=True)
        return self._turns(makers)

    def _path(self, suffix: str) -> Path:
        """A new name each time."""
        self.files += 1
        return self.folder / f"contestant{self.files}{suffix}"

    def _on_board(
        self, network: Any, inputs: list[np.ndarray], expected: np.ndarray | None, tolerance: float
    ) -> Placed:
        return Placed(_contestant(network, inputs, expected, tolerance), self.unit)

    def _tuned(self, task: KernelTask[C]) -> C | None:
        """What this layer's kernel in the artifact is made by; there it may write something else, and what
        cannot write what the layer standing alone does is not taken."""
        found = self.choices.get(_computed(json.loads(task.key)))
        chosen = cast(C, found)  # read as what the kind in the key has
        return chosen if found and task.refusal(chosen) is None else None

    def _ours(self, layer: Standalone, choose: Choose) -> Placed:
        imported, x = layer.imported(), layer.shaped(layer.x)
        library = self._path(".so")
        build(imported, self.target, library, choose)
        (expected,) = imported.reference([x]).outputs
        tolerance = 0.0 if layer.binarized else _ROUNDING
        return self._on_board(self.board.network(library), [x], expected, tolerance)

    def _topi(self, layer: Standalone) -> Placed:
        import tvm

        if reason := bitserial.unsupported(layer.conv):
            raise BibenchError(reason)
        library = self._path(".so")
        export(tvm.compile(bitserial.bitserial_module(layer.conv), target=self.target.tvm), library)
        kernel = np.ascontiguousarray(layer.weights.transpose(1, 2, 3, 0) > 0).astype("uint8")
        expected = layer.expected((layer.x >= 0).astype("float32"))
        return self._on_board(self.board.network(library), [layer.x, kernel], expected, 0.0)

    def _onnx_layer(self, layer: Standalone, *, int8: bool) -> Placed:
        file = self._path(".onnx")
        onnx_runtime.write_layer(file, layer.conv, layer.weights, linear=layer.linear)
        x, expected = (
            layer.shaped(a) if layer.linear else np.ascontiguousarray(a.transpose(0, 3, 1, 2))
            for a in (layer.x, layer.expected(layer.x))
        )
        return self._onnx(file, [x], expected, _QUANTIZED if int8 else _ROUNDING, int8=int8)

    def _onnx(
        self, file: Path, inputs: list[np.ndarray], expected: np.ndarray, tolerance: float, *, int8: bool
    ) -> Placed:
        if int8:
            quantized = self._path(".onnx")
            onnx_runtime.quantize(file, quantized, [inputs], reduce_range=self.reduce_range)
            file = quantized
        session: Any
        if self.onnx_on_board:
            session, place = onnx_runtime.OnnxOnBoard(self.board, file, self.threads), BOARD
        else:
            session, place = onnx_runtime.OnnxRuntime(file, self.threads), HOST
        return Placed(_contestant(session, inputs, expected, tolerance), MILLISECONDS, place)

    def network(self, source: Source | None) -> dict[str, Any]:
        """As `layer`, of the whole network."""
        makers: dict[str, Callable[[], Placed]] = {OURS: lambda: self._artifact(source)}
        if self.default and _int8(self.artifact.record):
            self.left_out.append(
                "The network untuned: its int8 layers need what compile calibrated them with."
            )
        elif self.default and source:
            makers[UNTUNED] = lambda: self._untuned(source.imported)
        elif self.default:
            self.left_out.append("The network untuned: name what was compiled with --model.")
        if self.onnx and (float_twin := self._float_twin(source)):
            makers[FLOAT] = lambda: self._onnx(*float_twin, int8=False)
            makers[INT8] = lambda: self._onnx(*float_twin[:3], _QUANTIZED_NETWORK, int8=True)
        return self._turns(makers)

    def _artifact(self, source: Source | None) -> Placed:
        inputs = sample_inputs(self.artifact.record, None)
        expected = source.imported.reference(inputs).outputs[0] if source and source.file else None
        tolerance = _QUANTIZED_NETWORK if _int8(self.artifact.record) else _FLIPS
        return self._on_board(self.artifact.network_on(self.board), inputs, expected, tolerance)

    def _untuned(self, imported: Imported) -> Placed:
        inputs = sample_inputs(self.artifact.record, None)
        library = self._path(".so")
        build(imported, self.target, library, untuned)
        expected = imported.reference(inputs).outputs[0]
        return self._on_board(self.board.network(library), inputs, expected, _FLIPS)

    def _float_twin(self, source: Source | None) -> tuple[Path, list[np.ndarray], np.ndarray, float] | None:
        """(ONNX file, inputs, output, tolerance) of what ONNX Runtime runs in place of the network.

        That is a network of its architecture that was never binarized, where `trainers` knows it, and else
        the ONNX file that was compiled: what is binary there, ONNX Runtime computes in float.
        """
        manifest = self.artifact.record
        inputs = sample_inputs(manifest, None)
        if source and source.file and source.file.suffix == ".onnx":
            return source.file, inputs, source.imported.reference(inputs).outputs[0], _FLIPS
        try:
            import trainers
        except ModuleNotFoundError:
            self.left_out.append("The network in ONNX Runtime: PyTorch, which writes it, is not installed.")
            return None
        if manifest.model not in trainers.list_models():
            self.left_out.append(
                "The network in ONNX Runtime: its architecture is not one of trainers', so name the .onnx "
                "file that was compiled with --model."
            )
            return None
        file = self._path(".onnx")
        network = trainers.create_model(manifest.model, **sizes_of(manifest))
        return file, inputs, onnx_runtime.export(network, inputs, file), _ROUNDING

    def _turns(self, makers: Mapping[str, Callable[[], Placed]]) -> dict[str, Any]:
        """Make, check and time them. What fails is a sentence, and the others go on."""
        turns = Turns(needed=(OURS,))
        for title, make in makers.items():
            turns.enter(title, partial(_ready, make))
        seconds = turns.rounds(1 if self.unit == INSTRUCTIONS else _ROUNDS)
        costs = {t: in_unit([s for (s,) in bursts], turns.about[t]["unit"]) for t, bursts in seconds.items()}
        times = {}
        for title, about in turns.about.items():
            same = about["place"] == BOARD and about["unit"] == self.unit
            ratio = ratios(costs[title], costs[OURS])["median"] if same else None
            times[title] = {"cost": median(costs[title]), **about, "ratio": ratio}
        return {"times": times, "failed": turns.failed}
