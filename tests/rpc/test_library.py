"""A network stays what it was when it was loaded, whatever is sent to the board or written since."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bibench_tvm import compile_model
from rpc import library, session


def compiled(weight: float, out: Path):
    layer = nn.Linear(8, 4, bias=False)
    nn.init.constant_(layer.weight, weight)
    return compile_model(layer.eval(), torch.ones(1, 8), target="host", out=out)


def test_several_networks_in_one_session(tmp_path: Path) -> None:
    x = np.ones((1, 8), np.float32)
    first, second = compiled(1, tmp_path), compiled(5, tmp_path)
    with (
        session.local_board() as (tracker, key),
        session.session(tracker, key, wait_s=60, limit_s=60) as board,
    ):
        before = first.network_on(board)
        assert [a.run_on(board, x)[0, 0] for a in (first, second, first)] == [8, 40, 8]
        assert before.run([x])[0][0, 0] == 8
        # A client of TVM's own, who calls both by one name.
        machines = []
        for artifact in (first, second):
            board._sent = itertools.repeat("same")
            machines.append(board.network(Path("model.so"), artifact._library.read()))
        assert [machine.run([x])[0][0, 0] for machine in machines] == [8, 40]


def test_without_files_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then they are in the temporary folder, and gone with the artifact."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr(library.tempfile, "tempdir", str(tmp_path))
    artifacts = [compiled(weight, tmp_path / "out") for weight in (1, 5)]
    assert [a.run(np.ones((1, 8), np.float32))[0, 0] for a in artifacts] == [8, 40]
    assert len(list(tmp_path.glob("bibench-*.so"))) == 2
    del artifacts
    assert not list(tmp_path.glob("bibench-*.so"))
