"""The weight of a binary layer, as code outside of the layer gets it.

A network may hand a layer's weight to a function instead of calling the layer: F.linear(x, self.qkv.weight).
The binary layer would never run and the network would compute in float. So while a module runs,
`layer.weight` is a `RoutedWeight`: the product that the layer stands for is computed by the layer, and what
cannot be is computed in float with a warning. Fused kernels (`nn.TransformerEncoderLayer` in evaluation)
refuse such a tensor by themselves and call the layers. Outside of a forward `layer.weight` is the parameter
itself: for optimizers, initialisation and pruning."""

import contextlib
import sys
import warnings
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

_SHELL = torch.empty(0)
_CALL = nn.Module._call_impl.__code__
_CONVOLUTIONS = {F.conv1d: 1, F.conv2d: 2}
_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}
_TRANSPOSE = {torch.t, Tensor.t, Tensor.T.__get__, Tensor.mT.__get__}  # type: ignore[attr-defined]
# What leaves the weight what it is, and so still the layer's.
_SAME = {
    Tensor.detach,
    torch.detach,
    Tensor.data.__get__,  # type: ignore[attr-defined]
    Tensor.contiguous,
    Tensor.to,
    Tensor.type,
    Tensor.type_as,
    Tensor.float,
    Tensor.half,
    Tensor.bfloat16,
}


def in_a_forward() -> bool:
    """Whether a module is being called, by the frames of this thread."""
    if torch.compiler.is_compiling():
        return True
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is _CALL:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Routed(Protocol):
    """The binary layer that a weight belongs to."""

    name: str
    spatial: int
    is_transposed: bool
    declared: tuple[Any, ...]  # stride, padding, dilation, groups
    explicit_padding: Any

    def compute(self, x: Tensor, bias: Tensor | None) -> Tensor: ...


class RoutedWeight(Tensor):
    """A binary layer's weight whose products are the layer's; everything else works on `source`."""

    layer: "Routed"
    source: Tensor
    transposed: bool

    @staticmethod
    def of(source: Tensor, layer: "Routed", transposed: bool = False) -> "RoutedWeight":
        """Wrap `source`: the layer's parameter, or what was made of it."""
        # What torch.export puts in the place of parameters has a kind of its own, and cannot have this too.
        plain = type(source) in (Tensor, nn.Parameter)
        with contextlib.nullcontext() if plain else _disable_current_modes():
            routed = (source if plain else _SHELL).as_subclass(RoutedWeight)
        routed.layer, routed.source, routed.transposed = layer, source, transposed
        return routed

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        routed = next(x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, RoutedWeight))
        layer = routed.layer
        if (product := _product(func, args, kwargs)) is not None:
            return layer.compute(*product)
        args, kwargs = pytree.tree_map_only(RoutedWeight, lambda x: x.source, (args, kwargs))
        result = func(*args, **kwargs)
        if func in _TRANSPOSE and layer.spatial == 0:
            return RoutedWeight.of(result, layer, not routed.transposed)
        if func in _SAME:
            return RoutedWeight.of(result, layer, routed.transposed)
        name = getattr(func, "__name__", str(func))
        tensors = any(isinstance(x, Tensor) for x in pytree.tree_leaves(result))
        of_values = tensors and name != "__get__" and not name.endswith("_")
        if of_values and not name.startswith("new_"):
            warnings.warn(
                f"The weight of the binary layer {layer.name or type(layer).__name__} is read by {name} "
                f"and not by "
                "the layer: that computes with the float weights. Call the layer instead, or name it in "
                "`keep`.",
                stacklevel=2,
            )
        return result


def _product(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor | None] | None:
    """Input and bias, where `func` is the product that the layer of the weight among `args` computes."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    x, weight, bias = given.get("input"), given.get("weight"), given.get("bias")
    if func in _MATMUL and len(args) == 2:
        x, weight, bias = args[0], args[1], None
    if not isinstance(weight, RoutedWeight) or isinstance(x, RoutedWeight) or isinstance(bias, RoutedWeight):
        return None
    layer = weight.layer
    if layer.spatial == 0:
        fits = weight.transposed if func in _MATMUL else func is F.linear and not weight.transposed
        return (x, bias) if fits and (func is F.linear or x.dim() > 1) else None
    if _CONVOLUTIONS.get(func) != layer.spatial or layer.is_transposed:
        return None
    wanted = (
        given.get("stride", 1),
        given.get("padding", 0),
        given.get("dilation", 1),
        given.get("groups", 1),
    )
    if _whole(wanted, layer.spatial) != _whole(layer.declared, layer.spatial) or layer.explicit_padding:
        return None
    return x, bias


def _whole(geometry: tuple[Any, ...], spatial: int) -> tuple[Any, ...]:
    *of_axes, groups = geometry
    return (
        *(x if isinstance(x, str) else (x,) * spatial if isinstance(x, int) else tuple(x) for x in of_axes),
        groups,
    )
