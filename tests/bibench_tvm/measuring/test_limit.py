"""The limit that layers are held against: it is there, it makes sense, and without it all goes on."""

import pytest

from bibench_tvm.measuring.limit import limits
from bibench_tvm.report.figures.layers import BINARY_LIMIT, FLOAT_LIMIT
from bibench_tvm.tracks import runner


def test_a_core_does_more_products_of_bits_than_of_floats() -> None:
    found = limits(repeats=2)
    assert found.keys() == {BINARY_LIMIT, FLOAT_LIMIT}  # what the report looks for
    assert 1e8 < found[FLOAT_LIMIT] < found[BINARY_LIMIT] < 1e15


def test_results_are_written_without_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/bin/false", "/bin/true", "/nowhere"):
        monkeypatch.setattr("sys.executable", program)
        assert runner._timed_on() == {}
