"""What TVM computes in ways of its own: scatters, checks, functions of libm. All as a library for C."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import trainers
from bibench_tvm import BibenchError, compile_model
from tests.bibench_tvm.compiling.c_library import by_ctypes, record, same, samples

TARGETS = ["host", "armv7", "cortex-m4"]
TWICE = torch.tensor([0, 2, 2, 1])


class Tail(torch.nn.Module):
    """A binary convolution, and what is in the subclass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(8, 8, 3, padding=1)
        trainers.binarize(self, "xnor", keep=[])

    def forward(self, x: torch.Tensor) -> object:
        return self.tail(self.conv(x))


class Scatters(Tail):
    def tail(self, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zeros = torch.zeros(8, 4, 4)
        return (
            F.fold(y.reshape(1, 8, 16)[..., :9], (4, 4), (2, 2)),
            zeros.index_put((TWICE,), y[0, :4], accumulate=True),
            zeros.index_add(2, TWICE, y[0]),
            zeros.scatter(2, TWICE[1:].expand(8, 4, 3), y[0, ..., :3]),
        )


class Classes(Tail):
    def tail(self, y: torch.Tensor) -> torch.Tensor:
        return F.one_hot(y.mean((2, 3)).argmax(1), 8)


class Sorted(Tail):
    def tail(self, y: torch.Tensor) -> torch.Tensor:
        return torch.topk(y, 3, dim=1).values


@pytest.mark.parametrize("target", TARGETS)
def test_scatters(target: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    options = {"target": target, "out": tmp_path, "standalone": True, "verify": 1}
    artifact = compile_model(Scatters().eval(), torch.zeros(1, 8, 4, 4), **options)
    assert artifact.record.verification.passed, artifact.record.verification.reason
    assert "pragma" not in capfd.readouterr().err
    if target == "host":
        for given in samples(artifact):
            for threads in (0, 2):
                assert same(by_ctypes(artifact, given, threads), artifact.run(*given))


@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_a_check_is_no_call(target: str, tmp_path: Path) -> None:
    options = {"target": target, "out": tmp_path, "standalone": True, "verify": 1}
    artifact = compile_model(Classes().eval(), torch.zeros(1, 8, 4, 4), **options)
    assert artifact.record.verification.passed, artifact.record.verification.reason
    header = (tmp_path / "standalone/model.h").read_text()
    assert "Not checked here, but by the source network: one_hot: Class values must be smaller" in header
    assert set(record(artifact).undefined_symbols) <= {"memcpy", "memset"}


def test_an_operator_of_the_runtime_is_named(tmp_path: Path) -> None:
    with pytest.raises(BibenchError, match="it needs the operator topk of TVM's runtime"):
        compile_model(Sorted().eval(), torch.zeros(1, 8, 4, 4), out=tmp_path, standalone=True)
