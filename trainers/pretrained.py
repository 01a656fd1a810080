"""The zoo: small networks that were trained here, as checkpoints in `trainers/zoo/`."""

from pathlib import Path

from trainers.convert import list_algorithms
from trainers.models import default_sizes

FOLDER = Path(__file__).parent / "zoo"


def list_pretrained() -> list[tuple[str, str]]:
    """(network, algorithm) of each, by name."""
    return sorted(tuple(path.stem.rsplit("-", 1)) for path in FOLDER.glob("*.pt"))  # type: ignore[misc]


def pretrained(arch: str, algorithm: str) -> Path:
    """The checkpoint of a network that was trained; what on is in its extra["task"].

    Raises:
        ValueError: there is none, or no such network or algorithm.
    """
    default_sizes(arch)
    path = FOLDER / f"{arch}-{algorithm}.pt"
    if algorithm not in list_algorithms() or not path.is_file():
        known = ", ".join(f"{name} {of}" for name, of in list_pretrained()) or "none"
        raise ValueError(f"There is no trained {arch} by {algorithm}; there are {known}.")
    return path
