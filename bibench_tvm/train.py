"""`python -m bibench_tvm.train`: train a network, float or binarized, on a task.

The bundled network was written by the command in its checkpoint's extra["command"].
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, results, run_command, stderr
from bibench_tvm.cli.errors import BibenchError, UsageError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoint.pt and for the state to go on from.")],
    task: Annotated[str, typer.Option(help="What to train on.")] = "fashion_mnist",
    arch: Annotated[str, typer.Option(help="The network.")] = "resnet20",
    algorithm: Annotated[
        str, typer.Option(help="The binarization algorithm, or fp32 for none.")
    ] = "reactnet",
    variant: Annotated[str, typer.Option(help="The formulas: paper or released.")] = "paper",
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A module that stays float; may be repeated. Default: first conv., last linear."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[
        float, typer.Option(min=0.0, help="The learning rate that the cosine schedule starts with.")
    ] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    limit_train: Annotated[
        int | None, typer.Option(min=2, help="Use only the first so many samples.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, if it is not at its usual place.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a network and write a checkpoint; a stopped training goes on when the command is given again."""
    with reporting(as_json=as_json, debug=debug):
        import torch

        from trainers import binarize, create_model, example_inputs_of
        from trainers.fit import CHECKPOINT, STATE, fit
        from trainers.inputs import describe
        from trainers.tasks import DataError, tasks

        task_class = tasks[task]
        torch.manual_seed(seed)  # the fresh weights
        model = create_model(arch, **task_class.sizes)
        taken, given = describe(example_inputs_of(model)), describe(task_class.example_inputs)
        if taken != given:
            raise UsageError(
                f"{arch} is for inputs {taken}, but {task} has {given}; name a network for these."
            )
        model = binarize(model, algorithm, variant, keep or None)
        metadata = {
            "arch": arch,
            "sizes": dict(task_class.sizes),
            "algorithm": algorithm,
            "variant": variant,
            "keep": keep or None,
            "extra": {"task": task, "command": "python -m bibench_tvm.train " + shlex.join(sys.argv[1:])},
        }
        try:
            metrics = fit(
                model,
                task_class(data),
                epochs=epochs,
                batch_size=batch_size,
                lr=lr,
                seed=seed,
                threads=threads,
                limit_train=limit_train,
                out=out,
                metadata=metadata,
            )
        except DataError as error:
            raise BibenchError(str(error)) from error
        except KeyboardInterrupt:
            whole = (out / STATE).exists()
            stderr.print(
                "The same command goes on after the last whole epoch."
                if whole
                else "No epoch was whole yet, so nothing was saved."
            )
            raise
        decisive = f"{task_class.metric} {metrics[task_class.metric]:.2%}"
        results(as_json).print(f"{out / CHECKPOINT}: {decisive} on the {task} test set")
        if as_json:
            result: dict[str, object] = {
                "arch": arch,
                "algorithm": algorithm,
                "variant": variant,
                "task": task,
            }
            result |= {f"test_{name}": value for name, value in metrics.items()}
            print_json({**result, "checkpoint": str(out / CHECKPOINT)})


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.train")
