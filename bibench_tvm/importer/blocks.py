"""What TVM's builder of Relax has open where a translation fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tvm import relax


@contextlib.contextmanager
def closed_at_failure(builder: relax.BlockBuilder) -> Iterator[None]:
    """End the blocks that an error in the `with` leaves open: TVM does not, and prints a warning when the
    builder goes, under the sentence that the user gets."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # as soon as none is open
            while True:
                builder._end_block()
        raise
