"""Signs before layers that stay float, given to the source as the artifact has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bibench_tvm import compile_model
from bibench_tvm.compiling.decided import FloatDecisions
from bibench_tvm.compiling.rounding import Rounding
from bibench_tvm.importer import Reference, import_model
from relay_passes.ir.decided import Decided


class Head(nn.Module):
    """A layer of floats behind signs of sums that are often 0 but for rounding."""

    def __init__(self, sign: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sign, self.first, self.last = sign, nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.weight = nn.Parameter(torch.where(torch.rand(8, 8, 3, 3) < 0.5, -0.3, 0.3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.where(self.first(x) >= 0, 1.0, -1.0)
        return self.last(self.sign(torch.conv2d(x, self.weight)))


SIGNS = {"two values": lambda x: torch.where(x >= 0, 1.0, -1.0), "three values": torch.sign}


@pytest.mark.parametrize("sign", SIGNS)
def test_is_verified(sign: str, tmp_path: Path) -> None:
    model = Head(SIGNS[sign]).eval()
    torch.onnx.export(model, (torch.zeros(1, 3, 10, 10),), tmp_path / "m.onnx", dynamo=False)
    verification = compile_model(tmp_path / "m.onnx", out=tmp_path / "out", verify=3).manifest["verification"]
    assert verification["passed"], verification["reason"]
    assert verification["flipped_signs"] == verification["excused_flips"] > 0


@pytest.fixture(scope="module")
def reference() -> Reference:
    return import_model(Head(SIGNS["two values"]).eval(), example_inputs=torch.zeros(1, 3, 10, 10)).reference


X = np.random.default_rng(0).standard_normal((1, 3, 10, 10)).astype(np.float32)


def test_a_sign_without_excuse(reference: Reference) -> None:
    plain = reference([X], {})
    [signs] = plain.layer_inputs["last"]
    [decision] = reference.decisions("last", 0)
    far = np.abs(reference([X], {}, wanted=[decision.tensor]).tensors[decision.tensor]) > 1
    for flipped in (np.zeros(signs.shape, bool), far):
        checked = FloatDecisions(reference, [Decided("last", None, True)], Rounding(reference))  # type: ignore[arg-type]
        own = checked.injections([np.where(flipped, -signs, signs)], plain)
        checked.check(own, plain, [X], own)
        assert (checked.signs, checked.flipped, checked.excused) == (signs.size, flipped.sum(), 0)
        assert bool(checked.reason()) == flipped.any()


@pytest.mark.parametrize("change", [lambda x: x * 2, lambda x: x[:, :-1], lambda x: x + 0.1])
def test_what_is_no_choice_of_the_source_is_not_given_to_it(change: Callable, reference: Reference) -> None:
    plain = reference([X], {})
    [signs] = plain.layer_inputs["last"]
    checked = FloatDecisions(reference, [Decided("last", None, True)], Rounding(reference))  # type: ignore[arg-type]
    assert checked.injections([change(signs)], plain) == {}
