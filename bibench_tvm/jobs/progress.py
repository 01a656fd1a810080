"""What commands that run jobs say meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from bibench_tvm.cli.console import phase, stderr
from bibench_tvm.jobs.job import Outcome


@contextlib.contextmanager
def shown(what: str, total: int) -> Iterator[Callable[[Outcome], None]]:
    """A phase of so many jobs; gives what to call with each outcome, which has a line of its own."""
    with phase(what, total) as step:

        def advance(outcome: Outcome) -> None:
            step()
            reason = f": {outcome.reason}" if outcome.reason else ""
            stderr.print(f"{outcome.name} {outcome.state}{reason}", soft_wrap=True)

        yield advance
