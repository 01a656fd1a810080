"""The README tells the truth: its Python runs. `tests/docs/test_commands.py` runs its commands."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in one process, as in a notebook, and with other weights each time."""
    monkeypatch.chdir(tmp_path)
    results = []
    for _ in range(2):
        names: dict = {}
        exec("\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)), names)
        results.append(names["y"])
    assert results[0].shape == results[1].shape == (4, 10)
    inputs = names["a"], names["b"]
    np.testing.assert_allclose(names["similarity"], torch.cosine_similarity(*inputs), atol=1e-6)
    assert not np.array_equal(*results)
    assert (tmp_path / "build" / "manifest.json").exists()
