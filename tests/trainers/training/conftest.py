"""The toy networks and tasks under names, and a training of one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainers.toy_image import Brighter, tiny
from tests.trainers.toy_text import HasMark, toy_text
from trainers import binarize
from trainers.models import create_model, models
from trainers.tasks import tasks
from trainers.training.fit import fit
from trainers.training.recipe import Recipe

Train = Callable[..., tuple[dict[str, float], nn.Module]]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models._entries, "tiny", tiny)
    monkeypatch.setitem(models._entries, "toy_text", toy_text)
    monkeypatch.setitem(tasks._entries, "brighter", Brighter)
    monkeypatch.setitem(tasks._entries, "has_mark", HasMark)


@pytest.fixture
def train() -> Train:
    """train(folder, task, algorithm, recipe's fields and arguments of fit) -> metrics and network."""
    return train_toy


def train_toy(
    out: Path, task: Any, algorithm: str = "recu", *, epochs: int = 4, **settings: Any
) -> tuple[dict[str, float], nn.Module]:
    torch.manual_seed(0)
    arch = "tiny" if isinstance(task, Brighter) else "toy_text"
    sizes = {key: value for key, value in task.sizes.items() if key != "stem"}
    model = binarize(create_model(arch, **sizes), algorithm)
    of_recipe = {key: value for key, value in settings.items() if key in Recipe.__struct_fields__}
    others = {key: value for key, value in settings.items() if key not in of_recipe}
    recipe = Recipe(**{"batch_size": 16, "lr": 0.01} | of_recipe)
    metadata = {"arch": arch, "algorithm": algorithm, "variant": "paper", "sizes": sizes}
    others |= {"epochs": epochs, "batch_size": recipe.batch_size}
    return fit(model, task, recipe, out=out, metadata=metadata, **others), model
