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
    Accuracies,
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
from bibench_tvm.cli.errors import BibenchError, UsageError, first_line, unknown
from bibench_tvm.compiling.calibrate import CALIBRATION_RUNS, COMPARED_RUNS, Calibration, calibrate, run_here
from bibench_tvm.compiling.dump_ir import Dump
from bibench_tvm.compiling.link import export, linker
from bibench_tvm.compiling.processors import CompileTarget, no_half, resolve_target
from bibench_tvm.compiling.sampling import (
    GivenSamples,
    check_samples,
    count_runs,
    sample_inputs,
    what_random_inputs_miss,
)
from bibench_tvm.compiling.standalone.library import DEFAULT_NAME, CLibrary, c_identifier, make_standalone
from bibench_tvm.compiling.verify import Samples, compare_outputs, runner_for, skipped, verify
from bibench_tvm.detection.detector import is_detector
from bibench_tvm.importer import Imported, TensorSpec
from bibench_tvm.importer.source import Network

if TYPE_CHECKING:
    import tvm

    from relay_passes import Lowered
    from schedules.records.kernel_task import Choose
    from schedules.records.records import Chooser

PROBE = "probe.so"
MODEL_IN_C, PROBE_IN_C = "model", "probe"
OBSERVED = "observed.so"
INT8_HERE = "int8.so"
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
        out=Path(out),
        tuned=Path(tuned) if tuned else None,
        verify=verify,
        samples=samples,
        labels=labels,
        float_layers=float_layers,
        float32=float32,
        dump_ir=Path(dump_ir) if dump_ir else None,
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
                calibration = _calibrate(imported, scratch, samples)
            ranges = calibration.ranges if calibration else None
            watch = Dump(options.dump_ir) if options.dump_ir else _unwatched
            library = None if resolved.bare else scratch / MODEL
            as_asked = Options(ranges=ranges, half=half, watch=watch)
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
                quantization = _cost_of_int8(imported, resolved, scratch, calibration, samples, labels)
        verification = skipped("It was not asked for: --verify N.")
        if verify:
            missed = what_random_inputs_miss(imported) if samples is None else []
            with phase(f"verifying on {verify} inputs", total=verify) as advance:
                verification = _verification(
                    imported,
                    resolved,
                    scratch,
                    finished,
                    for_c,
                    choose,
                    inputs,
                    labels,
                    advance,
                    Options(probe=True, ranges=ranges, half=half),
                    missed,
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


def chooser(target: CompileTarget, tuned: str | Path | None) -> Chooser:
    """The records of a folder, else those that ship for this target. Raises ValueError."""
    from schedules.records import records

    processor = target.processor
    if tuned is None:
        return records.shipped(processor, target.kernels)
    return records.tuned(Path(tuned), processor, target.kernels)


def _unwatched(phase: str, module: tvm.IRModule) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Options:
    """Those of `relay_passes.lower`."""

    probe: bool = False
    observe: bool = False
    ranges: Mapping[str, float] | None = None
    half: bool = False
    watch: Callable[[str, tvm.IRModule], None] = _unwatched


_PLAIN = Options()


def build(
    imported: Imported,
    target: CompileTarget,
    library: Path | None,
    choose: Choose,
    options: Options = _PLAIN,
) -> tuple[Lowered, tvm.IRModule]:
    """Lower, generate code and link to `library`, if there is to be one; returns what was lowered, and what
    code was made of.

    Raises BibenchError.
    """
    from relay_passes import finish, lower
    from schedules.codegen import generate_code
    from schedules.records.records import WrongRecord

    try:
        lowered = lower(imported.module, imported.layer_names, target.kernels, choose, **vars(options))
        finished = finish(lowered.module, target.tvm, target.kernels, options.watch)
        if library:
            export(generate_code(finished, target.tvm), library)
    except (BibenchError, WrongRecord):
        raise
    except Exception as error:  # TVM raises what it likes, with the whole network in its words
        raise BibenchError(
            f"The network was read, but cannot be compiled for {target.name}: {first_line(error)} That is a "
            "fault of the compiler; --debug shows where."
        ) from error
    return lowered, finished


def _verification(
    imported: Imported,
    target: CompileTarget,
    scratch: Path,
    finished: tvm.IRModule,
    for_c: CLibrary | None,
    choose: Chooser,
    inputs: Samples,
    labels: np.ndarray | None,
    advance: Callable[[], None],
    probing: Options,
    missed: list[str],
) -> Verification:
    backend = runner_for(target)
    if isinstance(backend, str):
        return skipped(backend)
    probe = None if target.runs_as_c else scratch / PROBE
    lowered, probed = build(imported, target, probe, choose, probing)
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
    return verify(imported, *libraries, lowered, backend, inputs, labels, missed, advance)


def _compared_inputs(imported: Imported, samples: GivenSamples | None) -> Samples:
    if samples is None:
        return sample_inputs(imported, CALIBRATION_RUNS, None)
    return sample_inputs(imported, max(1, min(COMPARED_RUNS, count_runs(imported, samples))), samples)


def _calibrate(imported: Imported, scratch: Path, samples: GivenSamples | None) -> Calibration:
    here = resolve_target("host")
    lowered, _ = build(imported, here, scratch / OBSERVED, chooser(here, None), Options(observe=True))
    return calibrate(scratch / OBSERVED, lowered.observed, _compared_inputs(imported, samples))


def _cost_of_int8(
    imported: Imported,
    target: CompileTarget,
    scratch: Path,
    calibration: Calibration,
    samples: GivenSamples | None,
    labels: np.ndarray | None,
) -> FloatArithmetic:
    """The network in int8 beside the network in float, on this machine."""
    library = scratch / MODEL
    if not target.is_host:
        library = scratch / INT8_HERE
        here = resolve_target("host")
        build(imported, here, library, chooser(here, None), Options(ranges=calibration.ranges))
    ours = list(run_here(library, _compared_inputs(imported, samples)))
    compared = compare_outputs(ours, calibration.outputs, labels)
    accuracies = compared.pop("accuracies", None)
    return FloatArithmetic(
        mode="int8",
        calibrated_on="random numbers" if samples is None else "samples",
        calibration_samples=calibration.runs,
        compared_samples=len(ours),
        accuracy=Accuracies(int8=accuracies[0], float32=accuracies[1]) if accuracies else None,
        accuracy_difference=accuracies[0] - accuracies[1] if accuracies else None,
        **compared,
    )


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
