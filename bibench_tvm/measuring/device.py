"""What a report says of a device without TVM beside its times: whether it computes what it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bibench_tvm.cli.errors import BibenchError
from rpc.devices.device import NetworkOnDevice
from rpc.devices.here import run_here
from rpc.emulation.qemu import EmulationFailed
from rpc.missing import EmulationUnavailable


def facts(network: NetworkOnDevice, inputs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of the runs that were timed last, on these inputs. `check` has identical, true or null, and by
    what or why not.

    Raises BibenchError where the device computed anything else than the same program does here.
    """
    timing = network.timing
    assert timing is not None
    return {
        "check": _check(network, inputs),
        "timed_on_cores": list(timing.cores),
        "kept_on_cores": timing.kept_on_cores,
        "timed_governor": timing.governor,
        "warm_up_runs": timing.warm_up_runs,
    }


def _check(network: NetworkOnDevice, inputs: Sequence[np.ndarray]) -> dict[str, Any]:
    try:
        by, (expected,) = run_here(network.content, network.machine, [[*inputs, *network.timed_outputs]])
    except (EmulationUnavailable, EmulationFailed) as problem:
        return {"identical": None, "by": None, "reason": str(problem)}
    for index, (theirs, ours) in enumerate(zip(network.timed_outputs, expected, strict=True)):
        if theirs.tobytes() != ours.tobytes():
            raise BibenchError(
                f"What {network.where} computes is wrong: output {index} is not what the same program "
                f"gives by {by}."
            )
    return {"identical": True, "by": by, "reason": ""}
