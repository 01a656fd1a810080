"""The optimizer and the learning rate of a recipe."""

import math

import torch
from torch import nn

from trainers.operator import BinaryLayer
from trainers.training.recipe import Recipe

STEP_EVERY, STEP_BY = 0.3, 0.1  # of a stage, and to what share: the schedule "step"


def make_optimizer(model: nn.Module, recipe: Recipe, stage: int) -> torch.optim.Optimizer:
    """Of the parameters in three kinds, each with its weight decay; the last stage of two has none."""
    binary = {id(m.latent) for m in model.modules() if isinstance(m, BinaryLayer)}
    kinds: dict[str, list[nn.Parameter]] = {"binary": [], "float": [], "other": []}
    for name, parameter in model.named_parameters():
        matrix = name.endswith("weight") and parameter.dim() > 1
        kind = "binary" if id(parameter) in binary else "float" if matrix else "other"
        kinds[kind].append(parameter)
    decayed = stage == 0 or recipe.stages == 1
    groups = [
        {"params": found, "weight_decay": getattr(recipe, f"decay_{kind}") if decayed else 0.0}
        for kind, found in kinds.items()
        if found
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    adam = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return adam(groups, lr=recipe.lr, fused=True)


def rate_share(recipe: Recipe, step: int, steps: int) -> float:
    """The share of the learning rate at a step of a stage of so many, from 0 on.

    Cosine and linear go from 1 to 0, "step" falls to a tenth after each 30 % of the stage.
    """
    warm = math.ceil(recipe.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / (steps - warm)
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if recipe.schedule == "linear":
        return 1 - progress
    return STEP_BY ** int(progress / STEP_EVERY) if recipe.schedule == "step" else 1.0
