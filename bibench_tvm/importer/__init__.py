"""From a trained network to one Relax module: live PyTorch modules, `.pt2`, checkpoints and ONNX files.

There are two importers, and neither goes by way of the other. PyTorch written out as ONNX would need a single
one, but an artifact is compared with what the user trained: PyTorch itself is the reference of a PyTorch
network, down to the layer. PyTorch also computes the weights of such a network, `sign(w) * alpha` with the
alpha of its own algorithm, to the last bit, where an exporter may fold and fuse. And its layers are called by
the paths of their modules, which a user knows, and not by names of nodes. ONNX in turn comes from other
frameworks too, and is read without PyTorch.

What they have alike is here: the names of layers (`naming.py`), what they say (`sentences.py`), the shapes of
inputs (`shapes.py`), the reference that a verification runs (`reference.py`), the limits of files
(`limits.py`), and operators and indices that TVM has wrongly (`operators.py`, `indices.py`).
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bibench_tvm.cli.errors import BibenchError, first_line
from bibench_tvm.importer.imported import Imported, ImportFailed, TensorSpec
from bibench_tvm.importer.reference import Decision, Injection, Reference, ReferenceRun, SourceLayer
from bibench_tvm.importer.shapes import InputShapes, parse_input_shapes
from rpc.missing import sentence_of

__all__ = [
    "Decision",
    "Imported",
    "ImportFailed",
    "Injection",
    "InputShapes",
    "Reference",
    "ReferenceRun",
    "SourceLayer",
    "TensorSpec",
    "import_model",
    "parse_input_shapes",
]


def import_model(
    source: Any,
    *,
    example_inputs: Any = None,
    input_shapes: InputShapes | None = None,
    arch: str | None = None,
    algorithm: str | None = None,
    variant: str | None = None,
    float32: bool = False,
) -> Imported:
    """Import a `torch.nn.Module`, an `ExportedProgram`, or a file: `.pt2`, checkpoint or ONNX.

    A file is recognised by its content. PyTorch is not imported for an ONNX file, nor onnx for a PyTorch one.
    `example_inputs` fixes the shapes of a module or program, `input_shapes` those of a file, or of a module
    that has `example_inputs` of its own. `arch`, `algorithm` and `variant` describe a checkpoint that does
    not describe itself, and have to agree with one that does; nothing else takes them. A network in float16
    or bfloat16 computes in float32, and one in float64 where `float32` asks for it, and is refused else.
    Raises ImportFailed.
    """
    described = [key for key, value in dict(arch=arch, algorithm=algorithm, variant=variant).items() if value]
    if not isinstance(source, (str, Path)):
        _refuse_description(described, "A live model")
        with _named_if_missing("A PyTorch model"):
            from bibench_tvm.importer.from_torch.translate import import_torch
        return import_torch(
            source, example_inputs, name=type(source).__name__, input_shapes=input_shapes, float32=float32
        )
    path = Path(source)
    with _damage_named(path):
        kind = kind_of(path)
    if kind != "checkpoint":
        _refuse_description(described, str(path))
    with _damage_named(path):
        return _import_file(path, kind, input_shapes, arch, algorithm, variant, float32)


def _import_file(
    path: Path,
    kind: str,
    input_shapes: InputShapes | None,
    arch: str | None,
    algorithm: str | None,
    variant: str | None,
    float32: bool,
) -> Imported:
    if kind == "onnx":
        with _named_if_missing(f"{path}, an ONNX file,"):
            from bibench_tvm.importer.from_onnx.translate import import_onnx
        return import_onnx(path, input_shapes, float32=float32)
    with _named_if_missing(f"{path}, a PyTorch file,"):
        from bibench_tvm.importer.from_torch.translate import import_checkpoint, import_pt2
    if kind == "pt2":
        return import_pt2(path, input_shapes, float32=float32)
    return import_checkpoint(path, arch, algorithm, variant, input_shapes)


def _refuse_description(described: list[str], what: str) -> None:
    if described:
        raise ImportFailed(
            f"{what} describes itself; {' and '.join(described)} can be given for a checkpoint only."
        )


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """A damaged file fails anywhere, in the packages that read it and in what trusts them."""
    try:
        yield
    except BibenchError:
        raise
    except Exception as error:
        raise ImportFailed(
            f"{path} cannot be imported: it is damaged, or has something that is not expected "
            f"({first_line(error).rstrip('.')})."
        ) from error


@contextlib.contextmanager
def _named_if_missing(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if known := sentence_of((error.name or "").partition(".")[0]):
            raise BibenchError(known) from error
        raise BibenchError(f"{what} cannot be read without the package {error.name!r}.") from error


def kind_of(path: Path) -> str:
    """`pt2`, `checkpoint` or `onnx`, from the content of the file."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    if not head:
        raise ImportFailed(f"{path} is empty.")
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise ImportFailed(
                f"{path} begins as a PyTorch archive, but its end is missing: the file is truncated. Copy "
                "it again."
            ) from error
        if any(name.endswith("archive_format") or "/models/" in name for name in names):
            return "pt2"
        if any(name.endswith("constants.pkl") for name in names):
            raise ImportFailed(
                f"{path} is a TorchScript archive, which PyTorch has deprecated; save the model with "
                "torch.export.save."
            )
        if any(name.endswith("data.pkl") for name in names):
            return "checkpoint"
        raise ImportFailed(
            f"{path} is a zip archive, but neither a torch.export program nor a PyTorch checkpoint."
        )
    # The pickle of torch.save before 1.6 begins with its magic number.
    if head.startswith(b"\x80\x02\x8a\x0a"):
        return "checkpoint"
    # An ONNX file is a protobuf whose first field is, as a rule, ir_version (field 1, a small number).
    if head[0] == 0x08 and len(head) > 2 and head[1] < 0x40:
        return "onnx"
    if _is_text(head):
        raise ImportFailed(f"{path} is a text file, not a model; pass a .pt2, a .onnx or a checkpoint.")
    if path.suffix == ".onnx":
        return "onnx"  # some writers order the fields differently; reading it will tell
    raise ImportFailed(
        f"{path} is neither an ONNX file, nor a torch.export program, nor a PyTorch checkpoint."
    )


def _is_text(head: bytes) -> bool:
    for end in range(len(head), len(head) - 4, -1):  # the last character may be cut
        try:
            text = head[:end].decode()
        except UnicodeDecodeError:
            continue
        return all(character.isprintable() or character in "\t\r\n" for character in text)
    return False
