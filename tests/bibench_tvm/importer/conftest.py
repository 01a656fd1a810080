"""What the importer's tests share: compile what was imported for this machine, compare with the framework."""

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax

from bibench_tvm.importer import Imported

Check = Callable[..., Imported]


@pytest.fixture
def assert_same() -> Check:
    return _assert_same


def _assert_same(imported: Imported, *values: np.ndarray, atol: float = 1e-4) -> Imported:
    """Plain TVM and the framework compute the same outputs, of the shapes that were promised."""
    executable = tvm.compile(imported.module, target=tvm.target.Target({"kind": "llvm", "opt-level": 0}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(value) for value in values))
    got = [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]
    run = imported.reference(list(values))
    assert len(got) == len(run.outputs) == len(imported.outputs)
    for ours, theirs, spec in zip(got, run.outputs, imported.outputs, strict=True):
        assert ours.shape == theirs.shape == spec.shape
        assert str(ours.dtype) == str(theirs.dtype) == spec.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol, err_msg=spec.name)
    assert set(run.layer_inputs) >= set(imported.layer_names.values())
    assert len(set(imported.layer_names.values())) == len(imported.layer_names)
    return imported
