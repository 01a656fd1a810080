"""What is to be trained and how, as one value, and doing it: a task, a network, an algorithm, a recipe."""

from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from trainers.checkpoint import load_checkpoint, weights_digest
from trainers.convert import binarize, list_hyperparameters
from trainers.initialise import initialise
from trainers.inputs import describe, example_inputs_of
from trainers.models import create_model, default_sizes
from trainers.models.bert import BertClassifier, load_transformers
from trainers.options import check_options
from trainers.tasks import Task, tasks
from trainers.torch_file import load_untrusted
from trainers.training.recipe import RECIPES, Recipe

FLOAT = "float"  # the folder of the float network beside the binarized one that starts from it


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be trained.

    Attributes:
        task, arch, algorithm, variant: names; hyperparameters: of the algorithm, those that are not default.
        keep: modules that stay float, None for the default.
        recipe: how; seed: of the fresh weights, the order and all that is random.
        init: a file to start from: a checkpoint or a state dict of the float network, a checkpoint of this
            one, for a BERT weights of `transformers`; without it the float network is trained first, if the
            recipe starts from it.
        limit_train: how many of the training samples are used, None for all.
        data: the folder of the data set, None for its usual place.
    """

    task: str
    arch: str
    algorithm: str = "fp32"
    variant: str = "paper"
    hyperparameters: dict[str, Any] = {}
    keep: list[str] | None = None
    recipe: Recipe = RECIPES["paper"]
    seed: int = 0
    init: str | None = None
    limit_train: int | None = None
    data: str | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has to compute with, as `fit` takes it."""

    threads: int = 1
    workers: int = 0
    devices: int = 1
    accelerator: str = "auto"
    precision: str = "32-true"
    save_every: float = 60.0


def perform(run: Run, out: Path, resources: Resources, command: str = "") -> dict[str, float]:
    """Train as `run` says and write `out`/checkpoint.pt; the metrics on the judged splits.

    `command` is what was typed, for the checkpoint.

    Raises:
        ValueError: a name, a size or a setting that does not exist, a network that is not for the task
            or into which nothing is distilled, or what `fit` raises.
        DataError: the data is missing or damaged.
    """
    check_options(run.algorithm, "hyper-parameter", run.hyperparameters, list_hyperparameters(run.algorithm))
    task_class, _ = tasks[run.task], default_sizes(run.arch)  # unknown names before the data is read
    task = task_class(Path(run.data) if run.data else None)
    binary = run.algorithm != "fp32"
    if not binary and not run.init:
        run = msgspec.structs.replace(run, recipe=_of_float(run.recipe))
    model, sizes = network_for(run, task)
    if run.recipe.distillation and callable(getattr(model, "loss", None)):
        raise ValueError(
            f"{run.arch} is trained by a loss of its own, into which nothing is distilled; choose a recipe "
            "with distillation=0."
        )
    start = _given(run, task) if run.init else None
    if start is None and binary and run.recipe.from_float:
        float_run = msgspec.structs.replace(
            run,
            algorithm="fp32",
            variant="paper",
            hyperparameters={},
            keep=None,
            recipe=_of_float(run.recipe),
        )
        start, _ = network_for(float_run, task)
        _fit(start, float_run, task, sizes, out / FLOAT, resources, command)
    if start is not None:
        initialise(model, start)
    given = weights_digest(start) if run.init and start is not None else ""
    teacher = start if run.recipe.distillation and start is not None else None
    return _fit(model, run, task, sizes, out, resources, command, teacher, given)


def _of_float(recipe: Recipe) -> Recipe:
    """For a float network with fresh weights: without what only one that starts from a float network has."""
    return msgspec.structs.replace(recipe, stages=1, distillation=0.0)


def _given(run: Run, task: Task) -> nn.Module:
    """The network of `run.init`: a checkpoint, a plain state dict of the float network, or for a BERT one of
    `transformers`."""
    assert run.init is not None
    content = load_untrusted(run.init)
    if isinstance(content, dict) and "format" in content:
        return load_checkpoint(run.init)[0]
    float_run = msgspec.structs.replace(run, algorithm="fp32", hyperparameters={}, keep=None)
    model, _ = network_for(float_run, task)
    if isinstance(model, BertClassifier) and isinstance(content, dict):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        load_transformers(model, tensors)
        return model
    return load_checkpoint(run.init, arch=run.arch, algorithm="fp32")[0]


def network_for(run: Run, task: Task) -> tuple[nn.Module, dict[str, Any]]:
    """The network of the run with fresh weights, and the sizes with which it fits the task.

    Raises:
        ValueError: it does not fit.
    """
    torch.manual_seed(run.seed)
    known = default_sizes(run.arch)
    sizes = {key: value for key, value in task.sizes.items() if key != "stem" or key in known}
    model = create_model(run.arch, **sizes)
    taken, given = describe(example_inputs_of(model)), describe(task.example_inputs)
    if taken != given:
        raise ValueError(
            f"{run.arch} is for inputs {taken}, but {run.task} has {given}; name a network for these."
        )
    return binarize(model, run.algorithm, run.variant, run.keep, hyperparameters=run.hyperparameters), sizes


def _fit(
    model: nn.Module,
    run: Run,
    task: Task,
    sizes: dict[str, Any],
    out: Path,
    resources: Resources,
    command: str,
    teacher: nn.Module | None = None,
    given: str = "",
) -> dict[str, float]:
    from trainers.training.fit import fit  # Lightning takes seconds to import
    from trainers.training.progress import report

    if out.name == FLOAT:
        report("The float network comes first.")
    of_float = run.recipe.float_epochs if run.algorithm == "fp32" else None
    metadata = {
        "arch": run.arch,
        "sizes": sizes,
        "algorithm": run.algorithm,
        "variant": run.variant,
        "hyperparameters": run.hyperparameters,
        "keep": run.keep,
        "extra": {"task": run.task, "command": command},
    }
    return fit(
        model,
        task,
        run.recipe,
        out=out,
        metadata=metadata,
        epochs=of_float or run.recipe.epochs or task.epochs,
        batch_size=run.recipe.batch_size or task.batch_size,
        seed=run.seed,
        teacher=teacher,
        given=given,
        limit_train=run.limit_train,
        **msgspec.structs.asdict(resources),
    )
