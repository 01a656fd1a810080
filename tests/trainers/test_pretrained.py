"""The zoo: every checkpoint loads, is of a task, and compiles by name."""

import pytest

from trainers.checkpoint import load_checkpoint
from trainers.pretrained import list_pretrained, pretrained
from trainers.tasks import tasks


@pytest.mark.parametrize(("arch", "algorithm"), list_pretrained())
def test_each_is_what_its_name_says(arch: str, algorithm: str) -> None:
    model, metadata = load_checkpoint(pretrained(arch, algorithm))
    assert (metadata["arch"], metadata["algorithm"]) == (arch, algorithm)
    extra = metadata["extra"]
    task = tasks[extra["task"]]
    assert 0 < extra[f"test_{task.metric}"] <= 1
    assert "--seed" in extra["command"]


def test_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="There is no trained vgg_small by bnn; there are "):
        pretrained("vgg_small", "bnn")
    with pytest.raises(ValueError, match="There is no model 'resnet21'"):
        pretrained("resnet21", "bnn")
