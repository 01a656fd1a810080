"""Recipes: how a network is trained, as small typed objects that print as YAML.

`paper` is the closed division: section 4 of the BiBench paper. The others are open, each with its source."""

import contextlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from trainers.registry import unknown_name
from trainers.wrong_type import in_words

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0)]


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to train.

    Attributes:
        epochs: passes over the training split; batch_size: samples of one forward on one device; None takes
            the task's own number.
        accumulate: so many of these make a step.
        lr: the highest learning rate; schedule: the share of it over the steps of a stage; warmup: the
            part of a stage in which it grows from 0 to there.
        momentum: of SGD; clip: the largest norm of the gradient of all parameters, 0 for any.
        decay_binary, decay_float, decay_other: weight decay of the weights whose sign is taken, of the other
            weights, and of all else (scales, thresholds, biases, normalisation).
        from_float: whether a binarized network starts from the float one, which is trained first with the
            same recipe.
        float_epochs: the epochs of a float network, also where it is trained by itself; None for `epochs`.
        stages: 1, or 2: binary activations with float weights for the first half of the epochs, and then
            both binary, without weight decay (ReActNet, section 5.1 and arXiv:2003.13144); each stage has the
            whole schedule and an optimizer of its own.
        distillation: the share of the loss that is the distance to the float network's outputs at the
            `temperature`; 0 for none. It needs `from_float` or a teacher.
        ema: what remains of the averaged weights at each step, 0 for no average; the average is judged.
        holdout: the part of the training split that is kept out of it to choose the best weights with, where
            the task has no validation split.
        select: the weights that are kept, the "last" or those "best" in validation.
        patience: so many epochs without a better validation end the training, 0 for none.
    """

    epochs: Count | None = None
    batch_size: Annotated[int, Meta(ge=2, le=1_000_000)] | None = None
    accumulate: Count = 1
    lr: Annotated[float, Meta(gt=0, le=1e6)] = 1e-3
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: Share = 0.9
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    warmup: Share = 0.0
    clip: Decay = 0.0
    decay_binary: Decay = 0.0
    decay_float: Decay = 0.0
    decay_other: Decay = 0.0
    from_float: bool = True
    float_epochs: Count | None = None
    stages: Literal[1, 2] = 1
    distillation: Share = 0.0
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    holdout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    select: Literal["last", "best"] = "last"
    patience: Annotated[int, Meta(ge=0)] = 0


RECIPES = {
    # Section 4: Adam, 1e-3, cosine, from the float network, the first and the last layer float.
    "paper": Recipe(),
    # Liu et al., 2020, ReActNet (arXiv:2003.03488), section 5.1: two stages, linear schedule, weight decay
    # in the first stage alone, distributions of the float network as the loss.
    "reactnet": Recipe(
        stages=2, schedule="linear", lr=5e-4, decay_binary=1e-5, decay_float=1e-5, distillation=1.0
    ),
    # Tables 15 and 16 of the BiBench paper: SGD, 0.1.
    "sgd": Recipe(optimizer="sgd", lr=0.1),
    # What is usual for transformers: Devlin et al., 2019 (arXiv:1810.04805), appendix A.2.
    "adamw": Recipe(
        optimizer="adamw", schedule="linear", warmup=0.1, decay_binary=0.01, decay_float=0.01, clip=1.0
    ),
    # For minutes and not days: on Fashion-MNIST, ResNet-20 and ReActNet, 88.3 % in the time in which the rate
    # of the paper and as long a training of the float network gave 84.9 %.
    "short": Recipe(lr=2e-3, batch_size=32, epochs=2, float_epochs=1),
}


def find_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe `name` with `settings` such as "lr=0.01", each a field and its value as YAML has it. Epochs
    that are set are those of the float network too, unless its own are set.

    Raises:
        ValueError: an unknown recipe or field, or a value that the field does not take: a sentence.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, list(RECIPES))
    values = msgspec.to_builtins(RECIPES[name])
    changes = [split_setting(setting) for setting in settings]
    if any(key == "epochs" for key, _ in changes):
        values["float_epochs"] = None
    for key, value in changes:
        if key not in values:
            raise unknown_name("setting of a recipe", key, list(values))
        values[key] = value
    return as_recipe(values)


def split_setting(setting: str) -> tuple[str, Any]:
    """ "lr=0.01" -> ("lr", 0.01); "1e-3" counts as a number too, which YAML reads as a text."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ValueError(f"A setting is KEY=VALUE, such as lr=0.01, and not {setting!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"The value of {key} cannot be read: {text!r}.") from error
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    return key, value


def as_recipe(values: dict[str, Any]) -> Recipe:
    """Raises ValueError, a sentence, for what is no recipe."""
    try:
        return msgspec.convert(values, Recipe)
    except msgspec.ValidationError as error:
        what, field = in_words(str(error))
        raise ValueError(f"The recipe cannot have that {field or 'field'}: {what}.") from error


def as_yaml(recipe: Recipe) -> str:
    """All fields, in their order."""
    return yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False)
