"""`python -m bibench_tvm.board --tracker HOST:PORT --key rpi4b`: offer this machine, or an emulated one.

Needs TVM, numpy, psutil, tornado and cloudpickle, and never torch: it runs on a board.
"""

from __future__ import annotations

import contextlib
import getpass
import shlex
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from bibench_tvm.console import AsJson, Debug, print_json, reporting, run_command, stderr
from bibench_tvm.errors import BibenchError, UsageError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def board(
    tracker: Annotated[str, typer.Option(help="HOST:PORT of the tracker.")] = "",
    key: Annotated[str, typer.Option(help="The name to ask for it by; boards of one kind share one.")] = "",
    host: Annotated[str, typer.Option(help="The address of this machine to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 0,
    time_limit: Annotated[
        float, typer.Option(min=0.1, max=86400, help="The most seconds that a client may have.")
    ] = 3600,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Offer a 64-bit Arm processor under QEMU.")
    ] = False,
    cpu: Annotated[str, typer.Option(help="With --emulate: QEMU's name of it. Default: cortex-a72.")] = "",
    print_install: Annotated[
        bool, typer.Option("--print-install", help="Print what to type on a Raspberry Pi.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Offer this machine to those who ask the tracker for KEY, until Ctrl-C."""
    with reporting(as_json=as_json, debug=debug):
        if print_install:
            lines = install_lines()
            if as_json:
                print_json({"install": lines})
            else:
                print("\n".join(lines))
            return
        from rpc.wire import listen, parse_address, show, warn_of

        if not tracker or not key:
            raise UsageError("A board needs --tracker HOST:PORT and --key NAME.")
        if not key.isascii() or not key.isprintable() or any(c in key for c in " :,") or len(key) > 64:
            raise UsageError(f"{key!r} cannot be a key: letters, digits, and signs such as - and + can.")
        if cpu and not emulate:
            raise UsageError("--cpu goes with --emulate: without it, a board is what it is.")
        address = parse_address(tracker)
        listener = listen(host, port)
        from rpc import lean

        lean.import_tvm()
        from rpc.board import Board

        if emulate:
            from rpc import emulated_board
            from rpc.qemu import EmulationFailed

            try:
                description, run_session = emulated_board.prepare(cpu or "cortex-a72")
            except EmulationFailed as problem:
                raise UsageError(f"There is no emulated {cpu or 'cortex-a72'}: {problem}") from None
        else:
            from rpc import machine, serve_session

            description, run_session = machine.describe(), serve_session.serve
        bound = listener.getsockname()[:2]
        kind = "The emulated board" if emulate else "The board"
        stderr.print(f"{kind} {key!r} listens at {show(bound)}.", soft_wrap=True)
        if warning := warn_of(listener):
            stderr.print(f"{warning} can run any program here, as you.", style="yellow", soft_wrap=True)
        if as_json:
            print_json({"key": key, "host": bound[0], "port": bound[1], **description})
            sys.stdout.flush()
        # To be stopped is how it ends.
        with contextlib.suppress(KeyboardInterrupt):
            Board(
                key,
                address,
                listener,
                description=description,
                run_session=run_session,
                time_limit_s=time_limit,
                say=lambda line: stderr.print(line, soft_wrap=True),
            ).serve()


def install_lines() -> list[str]:
    """What installs this checkout on a 64-bit Raspberry Pi OS, fetched from this machine over ssh."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "install.sh").is_file():
        raise BibenchError("The lines copy the project's checkout to the board. Type this in a checkout.")
    checkout = f"{getpass.getuser()}@{socket.gethostname()}:{root}/"
    copy = f"rsync -a --exclude '.*' {shlex.quote(checkout)} bibench_tvm"
    return [
        f"sudo apt-get update && sudo apt-get install -y python3-venv rsync && {copy}",
        "cd bibench_tvm && ./install.sh board && . .venv/bin/activate",
    ]


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.board")
