"""Which library can deploy which algorithm: table 4 of the paper, with a column of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from bibench_tvm.tracks.results import Result

# By Larq Compute Engine or daBNN, as section 5.2 and table 3 of the paper have it: neither takes the mean of
# an activation in a run, nor scales by place.
IN_PAPER = {
    **dict.fromkeys(("bnn", "dorefa", "bireal", "reactnet", "recu", "fda"), True),
    **dict.fromkeys(("xnor", "xnorpp"), False),
}


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What the compiler made of an algorithm's networks.

    Attributes:
        in_paper: whether Larq or daBNN deploys it, by the paper; None for an algorithm that is not in it.
        networks: that were compiled, verified and run; binary: layers of these that run on bits, of `layers`.
        reasons: why others are floats -> how many.
    """

    algorithm: str
    in_paper: bool | None
    networks: int
    binary: int
    layers: int
    reasons: dict[str, int]


def deployments(results: Iterable[Result]) -> list[Deployment]:
    """Of each binarization algorithm that has inferences, by the layers of these."""
    by_name: dict[str, dict[tuple[str, str, str], Result]] = {}
    for result in results:
        key = result.key
        if key.track == "inference" and key.algorithm != "fp32":
            network = key.task, key.arch, str(key.settings)
            by_name.setdefault(key.algorithm, {}).setdefault(network, result)
    found = []
    for algorithm, networks in sorted(by_name.items()):
        layers = [layer for result in networks.values() for layer in result.layers]
        found.append(
            Deployment(
                algorithm=algorithm,
                in_paper=IN_PAPER.get(algorithm),
                networks=len(networks),
                binary=sum(layer.binarized for layer in layers),
                layers=len(layers),
                reasons=dict(Counter(layer.reason for layer in layers if layer.reason)),
            )
        )
    return found
