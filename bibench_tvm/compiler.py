"""From a network to an artifact: import, lower, build, link, verify, write."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tvm.artifact import MODEL, SCHEMA_VERSION, Artifact, install, prepare_folder
from bibench_tvm.console import phase
from bibench_tvm.errors import BibenchError, UsageError
from bibench_tvm.importer import Imported, import_model
from bibench_tvm.link import link_shared, linker
from bibench_tvm.presets import CompileTarget, resolve_target
from bibench_tvm.verify import runner_for, skipped, verify

PROBE = "probe.so"


def compile_model(
    model: Any,
    example_inputs: Any = None,
    *,
    target: str = "host",
    out: str | Path = "build",
    name: str | None = None,
    algorithm: str | None = None,
    arch: str | None = None,
    variant: str | None = None,
    input_shapes: Mapping[str | None, tuple[int, ...]] | None = None,
    verify: int = 0,
    samples: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Artifact:
    """Compile a network and write the artifact to the folder `out`, whole or not at all.

    Args:
        model: a `torch.nn.Module`, an `ExportedProgram`, or the path of a `.pt2`, a checkpoint or a `.onnx`.
        example_inputs: a tensor or a tuple of them, which fix the shapes of a live module.
        target: `host`, a name of `presets.PRESETS`, or a TVM target tag.
        name, algorithm: what the manifest says of the model; read from the model where it knows.
        arch, variant: of a checkpoint that does not say.
        input_shapes: name -> shape, for a file with dynamic shapes.
        verify: how many inputs to compare with the source framework; under QEMU for an Arm target.
        samples: the inputs to verify on, [N, ...] of the network's one input, N at least `verify` batches; random
            normal numbers otherwise. labels: their classes, int [N], for the accuracy before and after.

    Returns:
        The artifact, as `load(out)` would.

    Raises:
        BibenchError, ValueError: a sentence that says what was wrong.
    """
    resolved = resolve_target(target)
    linker()
    out = Path(out)
    if verify < 0:
        raise UsageError(f"The number of samples to verify on cannot be {verify}.")
    with prepare_folder(out) as scratch_name:
        scratch = Path(scratch_name)
        with phase("importing"):
            imported = import_model(
                model,
                example_inputs=example_inputs,
                input_shapes=input_shapes,
                arch=arch,
                algorithm=algorithm if arch else None,
                variant=variant,
            )
        with phase(f"compiling for {resolved.name}"):
            lowered = build(imported, resolved, scratch / MODEL)
        verification = skipped("It was not asked for: --verify N.")
        if verify:
            with phase(f"verifying on {verify} inputs"):
                verification = _verification(imported, resolved, scratch / PROBE, verify, samples, labels)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "model": name or _name_of(model),
            "algorithm": algorithm or getattr(model, "algorithm", None),
            "target": {
                "name": resolved.name,
                "triple": resolved.triple,
                "cpu": resolved.cpu,
                "features": list(resolved.features),
            },
            "inputs": [_spec(s) for s in imported.inputs],
            "outputs": [_spec(s) for s in imported.outputs],
            "layers": [vars(layer) for layer in lowered.layers],
            "size_bytes": {"float32": float_bytes(imported), "deployed": (scratch / MODEL).stat().st_size},
            "verification": verification,
            "tuning": {"records": []},
            "versions": _versions(),
        }
        return install(scratch, out, manifest)


def build(imported: Imported, target: CompileTarget, library: Path, *, probe: bool = False) -> Any:
    """Lower, generate code and link to `library`; returns what was lowered (`relay_passes.Lowered`)."""
    import tvm

    from relay_passes import finish, lower

    lowered = lower(imported.module, imported.layer_names, target.kernels, probe=probe)
    # Shapes are static and checked at the door; a check in each kernel is 5 KB each and no safer.
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        executable = tvm.compile(finish(lowered.module, target.tvm), target=target.tvm)
    executable.export_library(str(library), fcompile=link_shared)
    return lowered


def _verification(
    imported: Imported,
    target: CompileTarget,
    probe: Path,
    count: int,
    samples: np.ndarray | None,
    labels: np.ndarray | None,
) -> dict[str, Any]:
    backend = runner_for(target, timeout_s=60.0 + 60.0 * count)
    if isinstance(backend, str):
        return skipped(backend)
    lowered = build(imported, target, probe, probe=True)
    inputs = sample_inputs(imported, count, samples)
    try:
        return verify(imported, probe, lowered.kernel_calls, backend, inputs, labels)
    except RuntimeError as error:  # the emulator's EmulationFailed and the virtual machine's own
        raise BibenchError(f"The verification failed to run: {error}") from error


def sample_inputs(imported: Imported, count: int, samples: np.ndarray | None) -> list[list[np.ndarray]]:
    """Inputs for `count` runs: from `samples`, or random and the same each time."""
    if samples is None:
        generator = np.random.default_rng(0)
        return [
            [
                generator.standard_normal(spec.shape).astype(spec.dtype)
                if "float" in spec.dtype
                else generator.integers(0, 2, spec.shape).astype(spec.dtype)
                for spec in imported.inputs
            ]
            for _ in range(count)
        ]
    if len(imported.inputs) != 1:
        raise UsageError(f"Samples are for networks of one input, and this one has {len(imported.inputs)}.")
    (spec,) = imported.inputs
    if samples.shape[1:] != spec.shape[1:] or len(samples) < count * spec.shape[0]:
        raise UsageError(
            f"The samples have shape {samples.shape}; {count} runs of the network take at least "
            f"{(count * spec.shape[0], *spec.shape[1:])}."
        )
    batches: Sequence[np.ndarray] = np.split(samples[: count * spec.shape[0]].astype(spec.dtype), count)
    return [[np.ascontiguousarray(batch)] for batch in batches]


def float_bytes(imported: Imported) -> int:
    """What the network's parameters weigh as float32."""
    from tvm import relax

    seen: dict[int, int] = {}

    def visit(expr: Any) -> None:
        if hasattr(expr, "value") and hasattr(expr.value, "numpy"):
            seen[hash(expr)] = 4 * int(np.prod(expr.value.shape))

    relax.analysis.post_order_visit(imported.module["main"], visit)
    return sum(seen.values())


def _spec(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _name_of(model: Any) -> str:
    return Path(model).stem if isinstance(model, (str, Path)) else type(model).__name__


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for key, package in {"bibench_tvm": "bibench-tvm", "tvm_ffi": "apache-tvm-ffi", "torch": "torch", "onnx": "onnx"}.items():
        try:
            found[key] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    import tvm

    return {**found, "tvm": tvm.__version__}
