"""Recipes: what they say, what they refuse, and what optimizer and rate come of them."""

import math

import msgspec
import pytest
import torch
import yaml
from torch import nn

from trainers import binarize
from trainers.training.optimizer import make_optimizer, rate_share
from trainers.training.recipe import RECIPES, Recipe, as_yaml, find_recipe, split_setting


def test_the_closed_division_is_the_paper_s() -> None:
    recipe = find_recipe("paper")
    assert (recipe.optimizer, recipe.lr, recipe.schedule, recipe.from_float) == ("adam", 1e-3, "cosine", True)
    assert (recipe.stages, recipe.distillation, recipe.ema, recipe.warmup) == (1, 0, 0, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_yaml_says(name: str) -> None:
    assert msgspec.convert(yaml.safe_load(as_yaml(RECIPES[name])), Recipe) == RECIPES[name]


def test_settings() -> None:
    given = ["lr=1e-2", "epochs=3", "optimizer=sgd", "from_float=false", "epochs=null"]
    recipe = find_recipe("paper", given)
    assert (recipe.lr, recipe.epochs, recipe.optimizer, recipe.from_float) == (0.01, None, "sgd", False)
    assert split_setting("tau_end=.95") == ("tau_end", 0.95)


@pytest.mark.parametrize(
    ("name", "setting", "sentence"),
    [
        ("papers", "lr=1", "There is no recipe 'papers'; did you mean 'paper'"),
        ("paper", "learning_rate=1", "There is no setting of a recipe 'learning_rate'"),
        ("paper", "lr", "A setting is KEY=VALUE, such as lr=0.01, and not 'lr'."),
        ("paper", "lr=[", "The value of lr cannot be read: '['."),
        ("paper", "lr=0", "The recipe cannot have that lr: it has to be a number, more than 0."),
        ("paper", "lr=.nan", "The recipe cannot have that lr"),
        ("paper", "lr=.inf", "The recipe cannot have that lr"),
        ("paper", "epochs=0", "The recipe cannot have that epochs"),
        ("paper", "epochs=2.5", "The recipe cannot have that epochs"),
        ("paper", "schedule=sine", "The recipe cannot have that schedule"),
        ("paper", "warmup=2", "The recipe cannot have that warmup"),
    ],
)
def test_what_is_refused(name: str, setting: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        find_recipe(name, [setting])
    assert sentence in str(error.value)


def test_rates() -> None:
    def shares(steps: int, **settings: object) -> list[float]:
        return [rate_share(Recipe(**settings), step, steps) for step in range(steps)]  # type: ignore[arg-type]

    assert shares(4) == pytest.approx([(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])
    assert shares(4, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert shares(10, schedule="step") == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3 + [0.001])
    assert shares(4, schedule="constant") == [1] * 4
    assert shares(8, schedule="linear", warmup=0.5) == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    assert shares(1, warmup=1.0) == [1]


def test_weight_decay_by_kind() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    model = binarize(layers, "reactnet", keep=["0"])
    recipe = Recipe(decay_binary=1e-5, decay_float=1e-4, decay_other=1e-6, stages=2)
    kinds = [
        ({(8, 8, 3, 3)}, 1e-5),
        ({(8, 1, 3, 3)}, 1e-4),
        # Biases, thresholds, normalisation.
        ({(8,), (8, 1, 1)}, 1e-6),
    ]
    for stage, factor in ((0, 1), (1, 0)):
        groups = make_optimizer(model, recipe, stage).param_groups
        found = [({tuple(p.shape) for p in group["params"]}, group["weight_decay"]) for group in groups]
        assert found == [(shapes, factor * decay) for shapes, decay in kinds]
    names = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    for name, kind in names.items():
        assert type(make_optimizer(model, Recipe(optimizer=name), 0)) is kind  # type: ignore[arg-type]


def test_epochs_that_are_set_are_those_of_the_float_network_too() -> None:
    assert find_recipe("short").float_epochs == 1
    assert find_recipe("short", ["epochs=5"]).float_epochs is None
    assert find_recipe("short", ["float_epochs=4", "epochs=5"]).float_epochs == 4
