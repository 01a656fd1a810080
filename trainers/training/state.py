"""What a training goes on from: a file beside its checkpoint that is written every minute, after each epoch
and when the training is stopped, always after a whole step."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from torch import Tensor

from trainers.torch_file import CheckpointError, load_untrusted, save_atomically
from trainers.wrong_type import in_words

STATE = "state.pt"
FORMAT, VERSION = "bibench_tvm.training", 1
Count = Annotated[int, Meta(ge=0)]


class State(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A training after `batches` batches of each process.

    Attributes:
        arguments: what has to be the same for a training that goes on, the identity of the data included.
        epochs: of the whole training; batches: done by each process; seconds: taken.
        stage: of the recipe's stages; log_bytes: length of the log.
        best: the best validation yet; since_best: validations since then.
        model, average, optimizer, scaler: state dictionaries; empty where there is none.
    """

    arguments: dict[str, Any]
    epochs: Count
    batches: Count
    seconds: float
    stage: Count
    log_bytes: Count
    best: float | None
    since_best: Count
    model: dict[str, Tensor]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]

    def save(self, folder: Path) -> None:
        save_atomically(
            folder / STATE,
            {"format": FORMAT, "version": VERSION}
            | {name: getattr(self, name) for name in self.__struct_fields__},
        )


def load_state(folder: Path, arguments: dict[str, Any], epochs: int, batches: int) -> State | None:
    """The state in `folder`, None if there is none.

    Args:
        arguments: of this training; epochs: how many it has; batches: of an epoch.

    Raises:
        ValueError: it belongs to another training, and how that differs; more epochs are welcome once it
            has done all that it had.
        CheckpointError: it is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        content = load_untrusted(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged; remove it to start anew.") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path} is not the state of a training; remove it to start anew.")
    if (version := content.pop("version", None)) != VERSION:
        raise CheckpointError(
            f"{path} is a state of version {version}, and this program reads {VERSION}; "
            "remove it to start anew."
        )
    try:
        msgspec.convert(content, State)  # which makes other dictionaries of those that PyTorch wrote
    except msgspec.ValidationError as error:
        what, field = in_words(str(error))
        place = f"its {field}: " if field else ""
        raise CheckpointError(
            f"{path} is not a whole state of a training, {place}{what}; remove it to start anew."
        ) from error
    state = State(**content)
    elsewhere = f"name another folder, or remove {path} to start anew"
    for key, value in arguments.items():
        if (there := state.arguments.get(key)) != value:
            what, there, value = _first_difference(key, there, value)
            raise ValueError(
                f"{folder} holds the state of a training with {what} {there!r}, not {value!r}; {elsewhere}."
            )
    if epochs != state.epochs and not (epochs > state.epochs and state.batches == state.epochs * batches):
        raise ValueError(
            f"{folder} holds the state of a training of {state.epochs} epochs, not of {epochs}; a finished "
            f"one can be given more, else {elsewhere}."
        )
    return state


def _first_difference(key: str, there: Any, value: Any) -> tuple[str, Any, Any]:
    if isinstance(there, dict) and isinstance(value, dict):
        for name in [*value, *there]:
            if there.get(name) != value.get(name):
                return f"{key} {name}", there.get(name), value.get(name)
    return key, there, value
