"""`python -m bibench_tvm.tracker`: where boards register and those who need one ask."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, run_command, stderr

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tracker(
    host: Annotated[str, typer.Option(help="The address of this machine to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 9190,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a tracker, until Ctrl-C."""
    with reporting(as_json=as_json, debug=debug):
        from rpc.wire import listen, show, warn_of

        listener = listen(host, port)
        from rpc.tracker import serve

        address = listener.getsockname()[:2]
        stderr.print(f"The tracker listens at {show(address)}.", soft_wrap=True)
        if warning := warn_of(listener):
            stderr.print(
                f"{warning} can take boards away from others here, and offer boards that are not what they "
                "say. It has no password.",
                style="yellow",
                soft_wrap=True,
            )
        if as_json:
            print_json({"host": address[0], "port": address[1]})
            sys.stdout.flush()
        # To be stopped is how it ends.
        with contextlib.suppress(KeyboardInterrupt):
            serve(listener)


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.tracker")
