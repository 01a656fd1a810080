"""Which layers of a network feed which, and which of them reach its outputs.

`trace` runs a copy of the network: symbolically with torch.fx, which needs no inputs, or on given ones, whose
every operation is watched. Where neither works, `heads_by_size` guesses from the layers' sizes."""

import copy
import inspect
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.operator import BinaryLayer

MULTIPLIES = (
    BinaryLayer,
    _ConvNd,
    nn.Linear,
    nn.Bilinear,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
_LINEAR = {F.linear, F.conv1d, F.conv2d, F.conv3d, torch.matmul, operator.matmul, torch.mm}
_PRODUCTS = _LINEAR | {
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.bilinear,
    F.multi_head_attention_forward,
    torch.bmm,
    torch.einsum,
    torch.addmm,
}
_PRODUCT_METHODS = {"matmul", "mm", "bmm", "addmm"}
_SIZES = {"size", "dim", "numel", "ndimension", "shape", "device", "dtype", "ndim"}
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Softmax, nn.Hardsigmoid, nn.Softplus)
_RECTIFY = {"relu", "relu_", "relu6", "sigmoid", "softmax", "hardsigmoid", "softplus", "abs", "square"}
_KEEPS_SIGNS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Flatten,
    nn.Identity,
    nn.Upsample,
    nn.ChannelShuffle,
    nn.ZeroPad2d,
)
# fmt: off
_KEEP_SIGNS = {
    "add", "mul", "iadd", "imul", "cat", "concat", "stack", "flatten", "view", "reshape", "permute",
    "transpose", "contiguous", "getitem", "chunk", "split", "mean", "sum", "squeeze", "unsqueeze",
    "max_pool1d", "max_pool2d", "_max_pool2d", "boolean_dispatch", "avg_pool1d", "avg_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "dropout", "interpolate", "clone", "detach", "to",
    "float", "half", "pad",
}
# fmt: on


@dataclass
class Flow:
    """Layers by their names; a product with a parameter that no layer has goes by the parameter's name.

    Attributes:
        called: the layers in the order of their first call.
        before: what feeds a layer with no other layer in between.
        outputs: for each output tensor, what reaches it with no other layer in between.
        read: layers whose weight goes to a function that does not compute the layer's product, and its name.
        tied: layers that share a weight with another module and were seen only as a product with it, which
            may be the other's.
        rectified: layers whose input is never negative, and what makes it so: names of modules, or "f()".
    """

    called: list[str] = field(default_factory=list)
    before: dict[str, set[str]] = field(default_factory=dict)
    outputs: list[set[str]] = field(default_factory=list)
    read: dict[str, str] = field(default_factory=dict)
    tied: set[str] = field(default_factory=set)
    rectified: dict[str, set[str]] = field(default_factory=dict)

    def call(self, layer: str, before: Iterable[str]) -> None:
        """Note a call of `layer`, whose input comes from `before`."""
        if layer not in self.before:
            self.called.append(layer)
        self.before.setdefault(layer, set()).update(before)

    def upstream(self, layer: str) -> set[str]:
        """All that feed `layer`, directly or through others."""
        found: set[str] = set()
        todo = [layer]
        while todo:
            for name in self.before.get(todo.pop(), ()):
                if name not in found:
                    found.add(name)
                    todo.append(name)
        return found

    def heads(self) -> set[str]:
        """The layers that reach an output with no other layer after them.

        A shortcut takes early layers past later ones to the same output; those are not heads.
        """
        heads = set()
        for reaching in self.outputs:
            upstream = {name: self.upstream(name) for name in reaching}
            heads |= {
                name
                for name in reaching
                if not any(name in upstream[other] and other not in upstream[name] for other in reaching)
            }
        return heads

    def update(self, other: "Flow", prefix: str) -> None:
        """Add what another run of the same network showed, whose names lack `prefix`."""
        for layer in other.called:
            self.call(prefix + layer, [prefix + name for name in other.before[layer]])
        self.outputs += [{prefix + name for name in reaching} for reaching in other.outputs]
        self.read |= {prefix + layer: function for layer, function in other.read.items()}
        self.tied |= {prefix + layer for layer in other.tied}
        for layer, why in other.rectified.items():
            causes = {cause if cause.endswith("()") else prefix + cause for cause in why}
            self.rectified.setdefault(prefix + layer, set()).update(causes)


def trace(model: nn.Module, example_inputs: Any = None) -> Flow | str:
    """The flow of `model` in training and in evaluation together, or why neither could be traced.

    `example_inputs` are the forward's argument, or a tuple or dictionary of them.
    """
    prefix = ""
    while wrapper := next((key for key in ("module", "_orig_mod") if _wraps(model, key)), None):
        model, prefix = getattr(model, wrapper), f"{prefix}{wrapper}."
    found, why = Flow(), ""
    for mode in (True, False):
        try:
            # Everything but the parameters, which are not written to, is the copy's own.
            twin = copy.deepcopy(model, {id(p): p for p in model.parameters()}).train(mode)
            with torch.random.fork_rng(devices=[]):
                flow = _symbolic(twin) if example_inputs is None else _watched(twin, example_inputs)
                found.update(flow, prefix)
        except Exception as error:  # whatever a network's forward raises
            why = str(error).strip().split("\n")[0] or type(error).__name__
    return found if found.called and found.outputs else why or "no tensor comes out of it"


def _wraps(model: nn.Module, key: str) -> bool:
    """Whether `model` does nothing but run the module that it has under `key`."""
    parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return key in model._modules and (parallel or key == "_orig_mod")  # the latter is torch.compile's


def heads_by_size(sizes: dict[str, tuple[int, int, int]]) -> set[str]:
    """The layers whose result no later one can take, from (inputs, outputs, spatial dimensions) in order."""
    heads, later = set(), list(sizes.values())
    for name, (_, width, spatial) in sizes.items():
        later = later[1:]
        if not any(
            taken == width or (spatial and not below and taken % width == 0) for taken, _, below in later
        ):
            heads.add(name)
    return heads


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, MULTIPLIES) or super().is_leaf_module(module, qualified_name)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(module, forward, args, kwargs)
        except Exception:  # it branches on values: a box with layers in it
            return self.create_proxy("call_module", self.path_of_module(module), args, kwargs)


def _symbolic(model: nn.Module) -> Flow:
    for module in model.modules():
        module._forward_pre_hooks.clear()  # what others hooked on, such as weight norm, is not traced
        module._forward_hooks.clear()
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return _read_graph(_Tracer().trace(model, defaults or None), model)


def _read_graph(graph: fx.Graph, model: nn.Module) -> Flow:
    flow = Flow()
    after: dict[fx.Node, set[str]] = {}  # the layers whose result a value is made of
    weight: dict[fx.Node, str] = {}  # parameters, and what is made of one alone
    positive: dict[fx.Node, set[str]] = {}  # what is never negative, and why
    called: set[str] = set()
    parameters = dict(model.named_parameters(remove_duplicate=False))  # a buffer is no layer's weight
    for node in graph.nodes:
        inputs = node.all_input_nodes
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        before = set().union(*(after[i] for i in inputs)) if inputs else set()
        data = [i for i in inputs if i not in weight]
        after[node] = before
        if node.op == "output":
            leaves: list[fx.Node] = []
            fx.map_arg(node.args[0], leaves.append)
            flow.outputs += [after[leaf] for leaf in leaves]
        elif node.op == "get_attr" and node.target in parameters:
            weight[node] = node.target
        elif node.op == "call_module":
            module = model.get_submodule(node.target)
            layers = _layers_in(node.target, module)
            called.update(layers)
            for layer in layers:
                flow.call(layer, before)
                before = {layer} if len(layers) > 1 else before
                if data and data[0] in positive and len(layers) == 1:
                    flow.rectified.setdefault(layer, set()).update(positive[data[0]])
            after[node] = {layers[-1]} if layers else before
            if isinstance(module, _RECTIFIERS):
                positive[node] = {node.target}
        elif node.target is getattr and node.args[1] in _SIZES or node.op == "call_method" and name in _SIZES:
            after[node] = set()
        elif inputs and not data:
            weight[node] = weight[inputs[0]]
        elif weights := [weight[i] for i in inputs if i in weight]:
            owners = [_owners(w, model) for w in weights]
            layers = [names[0] for names in owners]
            method = node.op == "call_method" and name
            if method in _PRODUCT_METHODS or node.target in _PRODUCTS or _is_of_others(node):
                for layer in layers:
                    flow.call(layer, before)
                    if not (method == "matmul" or node.target in _LINEAR or _is_of_others(node)):
                        flow.read[layer] = name
                after[node] = set(layers)
                flow.tied |= {names[0] for names in owners if len(names) > 1}
        if node.op in ("call_function", "call_method") and name.strip("_") in {
            r.strip("_") for r in _RECTIFY
        }:
            positive[node] = {f"{name}()"}
        kept = (
            isinstance(model.get_submodule(node.target), _KEEPS_SIGNS)
            if node.op == "call_module"
            else (node.op in ("call_function", "call_method") and name in _KEEP_SIGNS)
        )
        if kept and data and all(i in positive for i in data):
            positive[node] = set().union(*(positive[i] for i in data))
    flow.read = {layer: function for layer, function in flow.read.items() if layer not in called}
    flow.tied -= called
    return flow


def _is_of_others(node: fx.Node) -> bool:
    """Whether a node calls a function that is not PyTorch's, into which nobody sees here."""
    return node.op == "call_function" and not getattr(node.target, "__module__", "torch").startswith(
        ("torch", "_operator")
    )


def _layers_in(name: str, module: nn.Module) -> list[str]:
    if isinstance(module, MULTIPLIES):
        return [name]
    return [
        f"{name}.{inner}" for inner, part in module.named_modules() if inner and isinstance(part, MULTIPLIES)
    ]


def _owners(parameter: str, model: nn.Module) -> list[str]:
    """The layers whose weight it is, then other modules that have it; its own name without such a layer."""
    value = model.get_parameter(parameter)
    having = {name: m for name, m in model.named_modules() if any(p is value for p in m._parameters.values())}
    layers = [
        n for n, m in having.items() if isinstance(m, MULTIPLIES) and m._parameters.get("weight") is value
    ]
    return layers + [name for name in having if name not in layers] if layers else [parameter]


class _Watch(TorchDispatchMode):
    """Follows through every operation which layers a tensor is made of, by the memory that it lies in."""

    def __init__(self, owners: dict[int, str], flow: Flow) -> None:
        super().__init__()
        self.owners, self.flow = owners, flow
        self.after: dict[int, set[str]] = {}
        self.alive: list[Any] = []  # memory that is freed could be that of another tensor later
        self.inside = 0

    def reaching(self, value: Any) -> set[str]:
        return set().union(*(self.after.get(_memory(x), set()) for x in _tensors(value)))

    def put(self, value: Any, layers: set[str], add: bool = False) -> None:
        for tensor in _tensors(value):
            memory = _memory(tensor)
            self.alive.append(tensor.untyped_storage())
            self.after[memory] = layers | (self.after.get(memory, set()) if add else set())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        layers = self.reaching((args, kwargs))
        operands = [self.owners.get(_memory(x)) for x in _tensors((args, kwargs))]
        names = [name for name in operands if name]
        if names and len(names) < len(operands) and not self.inside:  # a parameter meets activations
            product = any(part in str(func) for part in ("mm", "linear", "conv", "matmul"))
            for name in names if product else ():
                self.flow.call(name, layers)
            layers = set(names) if product else layers
        self.put(result, layers, add=True)
        return result


def _watched(model: nn.Module, example_inputs: Any) -> Flow:
    inputs = example_inputs if isinstance(example_inputs, (tuple, dict)) else (example_inputs,)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    flow = Flow()
    layers: dict[nn.Module, str] = {
        module: name for name, module in model.named_modules() if isinstance(module, MULTIPLIES)
    }
    owners = {
        _memory(p): _owners(name, model)[0]
        for name, p in model.named_parameters()
        if p.dim() > 1 and not p.is_meta
    }
    watch = _Watch(owners, flow)
    entered: list[set[str]] = []
    negative: set[str] = set()

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        watch.inside += 1
        entered.append(watch.reaching((args, kwargs)))
        x = next(iter(_tensors((args, kwargs))), None)
        if x is not None and not x.is_meta:
            flow.rectified.setdefault(layers[module], {"the example()"})
            if bool((x < 0).any()):
                negative.add(layers[module])

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        watch.inside -= 1
        flow.call(layers[module], entered.pop())
        watch.put(result, {layers[module]})

    handles = [m.register_forward_pre_hook(enter, with_kwargs=True) for m in layers]
    handles += [m.register_forward_hook(leave) for m in layers]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), watch:
            flow.outputs = [watch.reaching(leaf) for leaf in _tensors(model(*args, **kwargs))]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
    flow.rectified = {layer: why for layer, why in flow.rectified.items() if layer not in negative}
    return flow


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(value: Any) -> list[Tensor]:
    found = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (type, nn.Module)) and not callable(leaf):
            found += [x for x in pytree.tree_leaves(vars(leaf)) if isinstance(x, Tensor)]
    return found
