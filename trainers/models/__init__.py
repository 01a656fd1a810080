"""One file per family of networks. A new one is a file here with a function under `@register_model`.

The function takes the network's sizes as keywords, each with a default: `num_classes` and `in_channels` of an
image network, and `image_size` of one that finds objects, `num_classes`, `vocabulary` and `length` of one for
text, `num_classes`, `parts`, `points` and `in_channels` of one for point clouds, `num_classes`, `features`
and `frames` of one for speech. A text among them chooses between ways to build it: the `stem`, the
`aggregator`. A smaller or larger version is another name: each network has one for quick runs,
`@models.register("resnet20@small")`. What it returns is a module with

- `example_inputs`, a batch of one of what the forward takes: a tuple of its arguments, a dictionary of them
  by name, or one argument alone. A property, so that it is made when it is asked for. The values have to be
  such as the forward takes (token ids, a mask of ones); zeros do for images;
- `stays_float`, where the first convolution and the heads are not what should stay float by default: the
  names of the modules that should;
- `loss(outputs, targets)`, where the task cannot know it, as that of a detector, which is about the boxes it
  has: of what the forward returns in training and of the task's targets. In evaluation, and so in what is
  exported, the forward returns what the task's metrics take.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from trainers.inputs import call, example_inputs_of
from trainers.options import check_options
from trainers.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model")
Shapes = Mapping[str, Sequence[int]]


def register_model(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Enter the function `build(*, **sizes)` under its name."""
    return models.register(build.__name__)(build)


def create_model(name: str, **sizes: Any) -> nn.Module:
    """A float network with fresh weights, on the default device.

    Args:
        name: one of `list_models()`.
        sizes: some of `default_sizes(name)`; left out or None, those of the data set that the network is
            known for (num_classes of ImageNet 1000, of CIFAR-10 10).

    Raises:
        ValueError: an unknown name, a size that the network does not take, or one that is no whole number
            from 1 on, or not among the texts that it can be.
    """
    return models[name](**check_options(name, "size", sizes, default_sizes(name), least=1))


def default_sizes(name: str) -> dict[str, Any]:
    """The sizes that the network takes, with their defaults."""
    return {key: known.default for key, known in inspect.signature(models[name]).parameters.items()}


def list_models(pattern: str | None = None) -> list[str]:
    """The names of the networks, all or those that match a shell pattern such as "resnet*"."""
    return [name for name in models.names() if pattern is None or fnmatchcase(name, pattern)]


def sizes_by_weights(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes with which the network `name` has these weights, as far as they show in their shapes."""
    wanted = {key: tuple(value.shape) for key, value in state.items()}
    return _fit_sizes(name, lambda model: {k: tuple(v.shape) for k, v in model.state_dict().items()}, wanted)


def sizes_by_shapes(
    name: str, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The sizes with which the network `name` has inputs and outputs of these shapes, as far as they show."""

    def shapes_of(model: nn.Module) -> Shapes:
        examples = example_inputs_of(model)
        with torch.no_grad():
            found = pytree.tree_leaves(examples), pytree.tree_leaves(call(model.eval(), examples))
        return _numbered(*([tuple(x.shape) for x in leaves if isinstance(x, Tensor)] for leaves in found))

    return _fit_sizes(name, shapes_of, _numbered(inputs, outputs))


def _numbered(inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> Shapes:
    return {f"input {i}": shape for i, shape in enumerate(inputs)} | {
        f"output {i}": shape for i, shape in enumerate(outputs)
    }


def _fit_sizes(name: str, shapes_of: Callable[[nn.Module], Shapes], wanted: Shapes) -> dict[str, Any]:
    """The sizes at which `shapes_of` the network are those `wanted`.

    A dimension grows with a size by so much: the network is built with the default and with twice that, and
    the size is what most of the dimensions that moved ask for. A size that moves none keeps its default.
    """

    def shapes(**sizes: int) -> Shapes:
        with torch.device("meta"):
            return shapes_of(create_model(name, **sizes))

    sizes, start = default_sizes(name), shapes()
    for size, default in sizes.items():
        if type(default) is not int:
            continue
        try:
            twice = shapes(**{size: 2 * default})
        except Exception:  # it has to fit another size, and the forward or the constructor says so anyhow
            continue
        asked: Counter[int] = Counter()
        for key in start.keys() & twice.keys() & wanted.keys():
            if len(start[key]) == len(twice[key]) == len(wanted[key]):
                for before, after, there in zip(start[key], twice[key], wanted[key], strict=True):
                    if before != after:
                        more, rest = divmod((there - before) * default, after - before)
                        asked[default + more] += not rest and default + more >= 1
        found = max(asked, key=lambda value: (asked[value], -value), default=default)
        if asked[found]:
            sizes[size] = found
    return sizes


models.discover(__name__, __path__)
