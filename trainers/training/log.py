"""The log of a training: one JSON object a line, the same for a training that was interrupted."""

import json
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


class Log:
    """Appends to `folder`/log.jsonl behind its first `length` bytes; what a killed training wrote beyond the
    state that it goes on from is cut off."""

    def __init__(self, folder: Path, length: int) -> None:
        self.file = (folder / LOG).open("ab")
        self.file.truncate(min(length, self.file.tell()))  # less where the log did not come along

    def write(self, **entry: Any) -> None:
        self.file.write(json.dumps(entry).encode() + b"\n")

    def flush(self) -> int:
        """The length in bytes of what is now in the file for sure."""
        try:
            self.file.flush()
        except OSError as error:
            raise OSError(f"{self.file.name} cannot be written: {error.strerror or error}.") from error
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
