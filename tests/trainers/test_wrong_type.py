"""msgspec's words become ours."""

from pathlib import Path

import pytest

from bibench_tvm.cli.errors import UsageError
from bibench_tvm.jobs.sweep import read_sweep
from trainers.training.recipe import find_recipe


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("epochs=many", "that epochs: it has to be a whole number or nothing, and is a text."),
        ("epochs=9999999", "that epochs: it has to be a whole number, 1000000 or less."),
        ("accumulate=0", "that accumulate: it has to be a whole number, 1 or more."),
        ("ema=1", "that ema: it has to be a number, less than 1."),
        ("optimizer=lion", "that optimizer: it cannot be 'lion'."),
        ("stages=3", "that stages: it cannot be 3."),
        ("lr=[1]", "that lr: it has to be a number, and is a list."),
    ],
)
def test_recipes(setting: str, sentence: str) -> None:
    with pytest.raises(ValueError) as found:
        find_recipe("paper", [setting])
    assert str(found.value) == f"The recipe cannot have {sentence}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("just a text", "it has to be a mapping, and is a text."),
        ("{arch: resnet20}", "it has no 'task'."),
        ("{task: t, arch: a, seeds: 1}", "there is no field 'seeds'."),
        ("{task: t, arch: a, seed: x}", "its seed: it has to be a whole number or a list, and is a text."),
        (
            "- {task: t, arch: a, limit_train: x}",
            "its limit_train: it has to be a whole number or nothing, and is a text.",
        ),
    ],
)
def test_sweeps(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as found:
        read_sweep(path)
    assert str(found.value) == f"{path} is no sweep: {sentence}"
