"""How many neighbours a kernel may compute at a time, where that is all there is to choose."""

from __future__ import annotations

from schedules.records.kernel_task import Written
from schedules.records.tile_space import unfilled
from schedules.targets.kernel_target import Lanes

_MOST = 512


def refusal_of_lanes(choice: Lanes, channels: int, outputs: Written) -> str | None:
    if not 1 <= choice.lanes <= _MOST:
        return f"{choice.lanes} lanes are more than any processor could hold"
    return unfilled(outputs, choice.lanes) if channels > choice.lanes else None


def fewer_or_more(default: Lanes, vector: int, channels: int) -> list[Lanes]:
    """The default, and 1 to 16 vectors: those that differ in what they make of so many channels."""
    some = [Lanes(lanes=vector * count) for count in (1, 2, 4, 8, 16)]
    # All that hold every channel are the same.
    seen = {min(default.lanes, channels)}
    found = [default]
    for lanes in some:
        if (taken := min(lanes.lanes, channels)) not in seen and lanes.lanes <= _MOST:
            seen.add(taken)
            found.append(lanes)
    return found
