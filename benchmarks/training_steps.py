"""`python -m benchmarks.training_steps`: what a step of training costs by algorithm, beside the same network
in plain PyTorch with a hand-written sign and straight-through estimator. All take turns, on one thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.tables import tell
from bibench_tvm.cli.console import AsJson, phase, run_command
from bibench_tvm.measuring.turns import Costs, ratios, rounds

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
PLAIN = "hand-written"


@app.command()
def training_steps(
    arch: Annotated[str, typer.Option(help="An image network.")] = "resnet20",
    batch_size: Annotated[int, typer.Option(min=2, max=10_000)] = 64,
    count: Annotated[int, typer.Option("--rounds", min=3, max=10_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """Time whole steps: forward, loss, backward, Adam."""
    import torch

    import trainers

    torch.set_num_threads(1)
    with phase("preparing"):
        turns = {PLAIN: _turn(_by_hand(arch), batch_size)}
        for algorithm in trainers.list_algorithms():
            turns[algorithm] = _turn(trainers.binarize(trainers.create_model(arch), algorithm), batch_size)
    with phase(f"{count} rounds"):
        costs = rounds(turns, count)
    plain = [cost[-1] for cost in costs[PLAIN]]
    found = {name: ratios([cost[-1] for cost in own], plain) for name, own in costs.items()}
    table = Table("step", "× hand-written", "quartiles", box=SIMPLE)
    for name, ratio in found.items():
        table.add_row(name, f"{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}")
    tell({"arch": arch, "batch_size": batch_size, "ratios": found}, [table], as_json)


def _by_hand(arch: str) -> Any:
    """The network whose layers that `binarize` would take are plain ones with the sign of both operands."""
    import torch
    from torch import nn

    import trainers

    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return torch.where(x >= 0, 1.0, -1.0)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return gradient * (x.abs() < 1)

    class Convolution(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._conv_forward(Sign.apply(x), Sign.apply(self.weight), self.bias)

    class Linear(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(Sign.apply(x), Sign.apply(self.weight), self.bias)

    model = trainers.create_model(arch)
    binary = trainers.binarize(trainers.create_model(arch), "bnn")
    for layer in trainers.binarization_report(binary):
        if layer.binary:
            module = model.get_submodule(layer.name)
            module.__class__ = Convolution if isinstance(module, nn.Conv2d) else Linear
    return model


def _turn(model: Any, batch_size: int) -> Callable[[], Costs]:
    import torch

    from trainers.inputs import example_inputs_of

    (example,) = example_inputs_of(model)
    images = torch.randn(batch_size, *example.shape[1:])
    labels = torch.zeros(batch_size, dtype=torch.int64)
    model.train()
    for parameter in model.parameters():
        if parameter.dim() == 4:  # as `fit` does
            parameter.data = parameter.data.clone(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> Costs:
        started = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return (time.perf_counter() - started,)

    step()
    return step


if __name__ == "__main__":
    run_command(app, "python -m benchmarks.training_steps")
