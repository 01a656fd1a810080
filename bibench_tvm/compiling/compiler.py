"""From a network to an artifact: import, lower, build, link, verify, write."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from bibench_tvm.artifact.artifact import Artifact, artifact_of, digest
from bibench_tvm.artifact.folder import STANDALONE, install, scratch_beside
from bibench_tvm.artifact.manifest import (
    MODEL,
    FloatArithmetic,
    KernelOfLayer,
    LayerRecord,
    Manifest,
    Memory,
    Sizes,
    SourceFile,
    Standalone,
    TargetDescription,
    Tensor,
    Tuning,
    Verification,
)
from bibench_tvm.cli.console import phase
from bibench_tvm.cli.errors import BibenchError, UsageError, as_path, refuse_no_count, unknown
from bibench_tvm.compiling.batches import one_batch_only
from bibench_tvm.compiling.build import BuildOptions, build, chooser, unwatched
from bibench_tvm.compiling.calibrate import calibrate, cost_of_int8
from bibench_tvm.compiling.dump_ir import Dump
from bibench_tvm.compiling.link import linker
from bibench_tvm.compiling.processors import CompileTarget, no_half, resolve_target
from bibench_tvm.compiling.runners import runner_for
from bibench_tvm.compiling.sampling import (
    GivenSamples,
    check_samples,
    sample_inputs,
    what_random_inputs_miss,
)
from bibench_tvm.compiling.standalone.library import DEFAULT_NAME, CLibrary, c_identifier, make_standalone
from bibench_tvm.compiling.verify import VerifiedOn, skipped, verify
from bibench_tvm.detection.detector import is_detector
from bibench_tvm.importer import Imported, TensorSpec
from bibench_tvm.importer.source import Network

if TYPE_CHECKING:
    import tvm

    from schedules.records.records import Chooser

PROBE = "probe.so"
MODEL_IN_C, PROBE_IN_C = "model", "probe"
FLOAT_LAYERS = ("float32", "int8", "fp16")


def compile_model(
    model: Any,
    example_inputs: Any = None,
    *,
    target: str = "host",
    out: str | Path = "build",
    name: str | None = None,
    arch: str | None = None,
    algorithm: str | None = None,
    variant: str | None = None,
    tuned: str | Path | None = None,
    input_shapes: Mapping[str | None, tuple[int, ...]] | None = None,
    verify: int = 0,
    samples: GivenSamples | None = None,
    labels: np.ndarray | None = None,
    float_layers: str = "float32",
    float32: bool = False,
    dump_ir: str | Path | None = None,
    standalone: bool = False,
) -> Artifact:
    """Compile a network and write the artifact to the folder `out`, whole or not at all.

    Args:
        model: a `torch.nn.Module`, an `ExportedProgram`, or the path of a `.pt2`, a checkpoint or a `.onnx`.
        example_inputs: a tensor or array, a tuple or list of them, or a dictionary by the names of the
            forward's arguments, which fix the shapes of a live module. Left out, the module's own
            `example_inputs`.
        target: `host`, a name of `processors.PRESETS`, or a TVM target tag.
        name: what the manifest calls the model, and what the functions of a `standalone` library begin with.
        arch, algorithm, variant: of a checkpoint that does not say. For a module, `algorithm` is what the
            manifest says where its layers do not.
        tuned: a folder that `tune` wrote for this target, whose records choose the schedules; else those
            that come with this program do, where there are some for the target.
        input_shapes: name -> shape, for a file with dynamic shapes, or a module with inputs of its own.
        verify: how many runs to compare with the source framework; under QEMU for an Arm target.
        samples: what to verify and calibrate on, [N, ...] of the network's one input, or a dictionary with
            such an array for each input by its name; N at least `verify` batches. Otherwise random numbers:
            normal where floating, token ids up to the vocabulary, bytes up to 255. labels: their classes,
            int [N], for the accuracy before and after.
        float_layers: `float32`, or `int8`: the layers that are not binary are computed in 8-bit integers, one
            scale for the weights of each output channel and one for the activations, which is calibrated on
            the first 32 batches of the samples; or `fp16`: those that are faster so are computed in float16,
            on processors that have arithmetic for it.
        float32: compute a network in float64 in float32; else it is refused. Inputs and outputs keep their
            types, but for bfloat16, which become float32.
        dump_ir: a folder to write the module to after each phase, as text without the constants.
        standalone: write the network as a library for C as well, to the folder `standalone` of the artifact.

    Returns:
        The artifact, as `load(out)` would. A verification that failed, or could not run, does not raise:
        `manifest["verification"]["passed"]` is False, or None.

    Raises:
        BibenchError, ValueError: a sentence that says what was wrong.
    """
    network = Network(
        model=model,
        example_inputs=example_inputs,
        input_shapes=input_shapes,
        arch=arch,
        algorithm=algorithm,
        variant=variant,
        name=name,
    )
    options = CompileOptions(
        target=target,
        out=as_path(out, "The folder out"),
        tuned=None if tuned is None else as_path(tuned, "The folder tuned"),
        verify=verify,
        samples=samples,
        labels=labels,
        float_layers=float_layers,
        float32=float32,
        dump_ir=None if dump_ir is None else as_path(dump_ir, "The folder dump_ir"),
        standalone=(name or DEFAULT_NAME) if standalone else None,
    )
    return compile_network(network, options)


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """See `compile_model`. standalone: a name for the library for C, or None for no such library."""

    target: str
    out: Path
    tuned: Path | None = None
    verify: int = 0
    samples: GivenSamples | None = None
    labels: np.ndarray | None = None
    float_layers: str = "float32"
    float32: bool = False
    dump_ir: Path | None = None
    standalone: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for options that make no sense."""
        refuse_no_count(self.verify, "The number of runs to verify on")
        if self.verify < 0:
            raise UsageError(f"The number of runs to verify on is {self.verify}, and cannot be less than 0.")
        if self.float_layers not in FLOAT_LAYERS:
            raise unknown("arithmetic of float layers", self.float_layers, FLOAT_LAYERS)
        if self.samples is not None:
            check_samples(self.samples, self.labels)
        elif self.labels is not None:
            raise UsageError("There are labels, and no samples that they belong to.")
        if self.standalone is not None:
            c_identifier(self.standalone)


def compile_network(network: Network, options: CompileOptions) -> Artifact:
    """What `compile_model` does."""
    resolved = resolve_target(options.target)
    if resolved.bare and options.standalone is None:
        raise UsageError(
            f"{resolved.name} has no operating system, on which TVM's runtime could run a network. Add "
            "--standalone (standalone=True) for a library that runs without."
        )
    half = options.float_layers == "fp16"
    if half and resolved.kernels.half_tile is None:
        raise UsageError(no_half(resolved))
    from relay_passes import activation_bytes, name_kernels, shared_kernels

    linker()
    choose = chooser(resolved, options.tuned)
    resolved = replace(resolved, kernels=choose.kernels)
    out, verify, samples, labels = options.out, options.verify, options.samples, options.labels
    if is_detector(out):
        raise UsageError(f"{out} holds a detector of two stages; name another folder for a network.")
    with scratch_beside(out) as scratch:
        with phase("importing"):
            imported = network.load(float32=options.float32)
        _check_shapes(imported)
        inputs = sample_inputs(imported, verify, samples)
        with phase(f"compiling for {resolved.name}"):
            calibration = None
            if options.float_layers == "int8":
                calibration = calibrate(imported, scratch, samples)
            ranges = calibration.ranges if calibration else None
            watch = Dump(options.dump_ir) if options.dump_ir else unwatched
            library = None if resolved.bare else scratch / MODEL
            as_asked = BuildOptions(ranges=ranges, half=half, watch=watch)
            lowered, finished = build(imported, resolved, library, choose, as_asked)
            for_c: CLibrary | None = None
            if options.standalone is not None:
                for_c = make_standalone(
                    finished,
                    resolved,
                    c_identifier(options.standalone),
                    scratch / STANDALONE,
                    title=network.title(imported),
                    inputs=tuple(map(_tensor, imported.inputs)),
                    outputs=tuple(map(_tensor, imported.outputs)),
                )
            in_c: Standalone | UnsetType = for_c.record if for_c else UNSET
            quantization = FloatArithmetic(mode="fp16" if half else "float32")
            if calibration:
                quantization = cost_of_int8(imported, resolved, scratch, calibration, samples, labels)
        verification = skipped("It was not asked for: --verify N.")
        if verify:
            missed = what_random_inputs_miss(imported) if samples is None else []
            on = VerifiedOn(samples=inputs, labels=labels, missed=missed)
            with phase(f"verifying on {verify} inputs", total=verify) as advance:
                verification = _verification(
                    imported,
                    resolved,
                    scratch,
                    finished,
                    for_c,
                    choose,
                    BuildOptions(ranges=ranges, half=half),
                    on,
                    advance,
                )
        content = library.read_bytes() if library else b""
        manifest = Manifest(
            model=network.title(imported),
            algorithm=imported.algorithm or network.algorithm,
            target=TargetDescription(
                name=resolved.name, triple=resolved.triple, cpu=resolved.cpu, features=resolved.features
            ),
            inputs=tuple(map(_tensor, imported.inputs)),
            outputs=tuple(map(_tensor, imported.outputs)),
            one_batch_only=one_batch_only(imported),
            source=_source(network.file) if network.file else None,
            layers=tuple(LayerRecord(**vars(layer)) for layer in lowered.layers),
            float_layers=quantization,
            kernels=tuple(KernelOfLayer(**entry) for entry in name_kernels(finished, lowered)),
            shared_kernels=shared_kernels(finished),
            notes=(*imported.notes, *filter(None, [choose.remark])),
            size_bytes=Sizes(
                float32=float_bytes(imported),
                deployed=len(content) if in_c is UNSET or library else in_c.code_and_constants,
            ),
            memory_bytes=Memory(peak_activations=activation_bytes(finished)),
            verification=verification,
            tuning=Tuning(records=tuple(choose.used.values())),
            versions=_versions(),
            files={MODEL: hashlib.sha256(content).hexdigest()} if library else {},
            standalone=in_c,
        )
        artifact = artifact_of(out, manifest, content)
        install(scratch, out, manifest)
        return artifact


def _verification(
    imported: Imported,
    target: CompileTarget,
    scratch: Path,
    finished: tvm.IRModule,
    for_c: CLibrary | None,
    choose: Chooser,
    options: BuildOptions,
    on: VerifiedOn,
    advance: Callable[[], None],
) -> Verification:
    backend = runner_for(target)
    if isinstance(backend, str):
        return skipped(backend)
    probe = None if target.runs_as_c else scratch / PROBE
    lowered, probed = build(imported, target, probe, choose, replace(options, probe=True))
    libraries: tuple[Path | CLibrary, Path | CLibrary] = scratch / MODEL, scratch / PROBE
    if target.runs_as_c:
        from rpc.emulation import cortex_m

        try:
            for_c = for_c or make_standalone(finished, target, DEFAULT_NAME, scratch / MODEL_IN_C)
            libraries = for_c, make_standalone(probed, target, DEFAULT_NAME, scratch / PROBE_IN_C)
            if target.bare and (absent := cortex_m.lacking(for_c.record.undefined_symbols)):
                return skipped(
                    f"{target.name} cannot be verified here: there is no {', '.join(absent)} for it."
                )
        except BibenchError as error:
            return skipped(f"{target.name} cannot be verified here: {error}")
    return verify(imported, *libraries, lowered, backend, on, advance)


def _check_shapes(imported: Imported) -> None:
    """Refuse a network of which nothing goes in, or nothing comes out."""
    for kind, specs in ("input", imported.inputs), ("output", imported.outputs):
        if not specs:
            raise UsageError(f"The network has no {kind}: there is nothing to compile.")
        for spec in specs:
            if 0 in spec.shape:
                raise UsageError(
                    f"The {kind} {spec.name!r} of the network has shape {spec.shape}, with no element in it. "
                    f"Give it shapes without a 0, or leave the {kind} out."
                )


def float_bytes(imported: Imported) -> int:
    """What the network's parameters weigh as float32."""
    from tvm import relax

    seen: dict[int, int] = {}

    def visit(expr: Any) -> None:
        if hasattr(expr, "value") and hasattr(expr.value, "numpy"):
            seen[hash(expr)] = 4 * int(np.prod(expr.value.shape))

    relax.analysis.post_order_visit(imported.module["main"], visit)
    return sum(seen.values())


def _source(model: Path) -> SourceFile:
    return SourceFile(file=model.name, sha256=digest(model))


def _tensor(spec: TensorSpec) -> Tensor:
    return msgspec.convert(vars(spec), Tensor)


def _versions() -> dict[str, str]:
    import tvm

    found = {"python": platform.python_version(), "tvm": tvm.__version__}
    for package in ("bibench-tvm", "apache-tvm-ffi", "torch", "onnx"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
