"""The progress of a training, which schedules follow."""

import pytest
from torch import nn

import trainers


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_outside_the_training_it_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        trainers.set_progress(nn.Linear(1, 1), progress)
