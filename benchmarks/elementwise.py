"""`python -m benchmarks.elementwise`: GELU behind a layer and the largest along an axis, beside PyTorch.

Both run in one process on one thread and take turns; what is reported is the ratio of their times, round by
round. The copies of input and output are in ours, as `Artifact.run` makes them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks.tables import tell
from benchmarks.timing import burst_of
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting
from bibench_tvm.measuring.turns import calls_within, ratios, rounds

if TYPE_CHECKING:
    import torch

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _cases() -> dict[str, tuple[torch.nn.Module, tuple[int, ...]]]:
    import torch
    from torch import nn

    class Along(nn.Module):
        """One function."""

        def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.function(x)

    tokens = (1, 128, 64)
    return {
        "linear 64 to 1200, GELU": (nn.Sequential(nn.Linear(64, 1200), nn.GELU()), tokens),
        "the same, tanh form": (nn.Sequential(nn.Linear(64, 1200), nn.GELU(approximate="tanh")), tokens),
        "amax along the last axis, 1024 of 1024": (Along(lambda x: x.amax(-1)), (1, 1024, 1024)),
        "max(2)[0], 1024 of 1000": (Along(lambda x: torch.max(x, 2)[0]), (1, 1024, 1000)),
        "max(1)[0], 1024 by 256": (Along(lambda x: torch.max(x, 1)[0]), (1, 1024, 256)),
    }


@app.command()
def elementwise_command(
    count: Annotated[
        int, typer.Option("--rounds", min=3, max=10_000, help="How often each takes its turn.")
    ] = 15,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time them."""
    with reporting(as_json=as_json, debug=debug):
        report = {}
        for title, (model, shape) in _cases().items():
            with phase(title):
                report[title] = measure(model, shape, count)
        table = Table(title="PyTorch's time over ours, one thread")
        for column in ("what", "median", "low", "high"):
            table.add_column(column)
        for title, found in report.items():
            table.add_row(title, *(f"{found[name]:.2f}" for name in ("median", "low", "high")))
        tell(report, [table], as_json)


def measure(model: Any, shape: tuple[int, ...], count: int) -> dict[str, float]:
    """Quartiles of PyTorch's time over ours. Raises RuntimeError where the two do not agree."""
    import numpy as np
    import torch

    from bibench_tvm import compile_model, load

    torch.manual_seed(0)
    x = torch.randn(shape)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        compile_model(model.eval(), x, target="host", out=folder)
        artifact, given = load(folder, threads=1), x.numpy()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if not np.allclose(artifact.run(given), model(x).numpy(), rtol=1e-5, atol=1e-5):
                raise RuntimeError("Ours is not what PyTorch computes.")
            bursts = {
                "ours": burst_of(lambda: artifact.run(given)),
                "theirs": burst_of(lambda: model(x)),
            }
            calls = {name: calls_within(burst, 0.05) for name, burst in bursts.items()}
            costs = rounds(
                {name: lambda name=name: bursts[name](calls[name]) for name in bursts},  # type: ignore[misc]
                count,
            )
        finally:
            torch.set_num_threads(before)
    return ratios([c[0] for c in costs["theirs"]], [c[0] for c in costs["ours"]])


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.elementwise")
