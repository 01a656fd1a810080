"""Table 4 with a column of our own, from results that are written out here."""

import msgspec

from bibench_tvm.tracks.deployment import deployments
from bibench_tvm.tracks.results import Layer, Result
from tests.bibench_tvm.tracks.test_check import result


def of(algorithm: str, arch: str, threads: int = 1) -> Result:
    layers = [
        Layer(name="first", op="conv2d", binarized=False, reason="it was kept", macs=9, cost=0.1),
        Layer(name="second", op="conv2d", binarized=True, macs=9, cost=0.1),
    ]
    one = result("inference", algorithm, layers=layers)
    key = msgspec.structs.replace(one.key, arch=arch, threads=threads)
    return msgspec.structs.replace(one, key=key)


def test_networks_count_once_and_their_layers_too() -> None:
    results = [of("xnor", "a"), of("xnor", "a", threads=2), of("xnor", "b"), of("mine", "a"), of("fp32", "a")]
    mine, xnor = deployments([*results, result("learning_task")])
    assert (mine.algorithm, mine.in_paper, mine.networks) == ("mine", None, 1)
    assert (xnor.in_paper, xnor.networks, xnor.binary, xnor.layers) == (False, 2, 2, 4)
    assert xnor.reasons == {"it was kept": 2}
