"""`python -m bibench_tvm.board --tracker HOST:PORT --key rpi4b`: offer this machine, or an emulated one.

Needs TVM and numpy, and never torch: it runs on a board.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, run_command, stderr
from bibench_tvm.cli.errors import BibenchError, UsageError

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
    source: Annotated[
        str,
        typer.Option("--from", help="With --print-install: USER@HOST, this machine as it is reached."),
    ] = "",
    without_ssh: Annotated[
        bool, typer.Option("--without-ssh", help="With --print-install: fetch it over HTTP instead.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Offer this machine to those who ask the tracker for KEY, until Ctrl-C."""
    with reporting(as_json=as_json, debug=debug):
        if print_install:
            _print_install(source, without_ssh, as_json)
            return
        if source or without_ssh:
            raise UsageError("--from and --without-ssh go with --print-install.")
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
        from rpc.server import BoardServer

        if emulate:
            from rpc.emulation import emulated_board
            from rpc.emulation.qemu import EmulationFailed

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
            BoardServer(
                key,
                address,
                listener,
                description=description,
                run_session=run_session,
                time_limit_s=time_limit,
                say=lambda line: stderr.print(line, soft_wrap=True),
            ).serve()


# What ./install.sh board comes to on a 64-bit Raspberry Pi OS.
NEEDS = "A board needs 500 MB of disk, downloads 120 MB, and has 174 MB in /tmp on the way."
_HTTP_PORT = 8000


def _print_install(source: str, without_ssh: bool, as_json: bool) -> None:
    here, there = install_lines(source, without_ssh)
    if as_json:
        print_json({"here": here, "install": there, "needs": NEEDS})
        return
    stderr.print(NEEDS, soft_wrap=True)
    if here:
        stderr.print("The first line is for this machine, until the board has fetched it.", soft_wrap=True)
    elif not source:
        stderr.print(
            "They fetch from this machine over ssh, by its address and your name. Where that is not how the "
            "board reaches it: --from USER@HOST, or --without-ssh.",
            soft_wrap=True,
        )
    print("\n".join([*here, *there]))


def install_lines(source: str = "", without_ssh: bool = False) -> tuple[list[str], list[str]]:
    """What to type (on this machine, on a 64-bit Raspberry Pi OS) to install this checkout there.

    source: USER@HOST or HOST, as the board reaches this machine; left out, who types this and the address
    that is used towards other machines, since a name need not resolve there. Raises UsageError.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "install.sh").is_file():
        raise BibenchError("The lines copy the project's checkout to the board. Type this in a checkout.")
    user, at, host = source.rpartition("@")
    wrong = any(not (c.isalnum() or c in "-_.@") for c in source) or (at and not user)
    if source and (wrong or not host):
        raise UsageError(f"--from {source!r} makes no sense: it is USER@HOST, for example pi@192.168.1.2.")
    host = host or _address()
    install = "cd bibench_tvm && ./install.sh board && . .venv/bin/activate"
    fetching = "sudo apt-get update && sudo apt-get install -y python3-venv"
    if without_ssh:
        serve = (
            f"d=$(mktemp -d) && tar -C {shlex.quote(str(root))} --exclude './.*' -czf $d/bibench_tvm.tgz . "
            f"&& python3 -m http.server --directory $d {_HTTP_PORT}"
        )
        copy = f"mkdir -p bibench_tvm && curl -f http://{host}:{_HTTP_PORT}/bibench_tvm.tgz"
        return [serve], [f"{fetching} curl && {copy} | tar -xzC bibench_tvm", install]
    # Under sudo it is not root whom ssh lets in.
    user = user or os.environ.get("SUDO_USER") or getpass.getuser()
    copy = f"rsync -a --exclude '.*' {shlex.quote(f'{user}@{host}:{root}/')} bibench_tvm"
    return [], [f"{fetching} rsync && {copy}", install]


def _address() -> str:
    """The address of this machine towards others, or its name where it has no way to them."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for the route
        return str(probe.getsockname()[0])
    return socket.gethostname()


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.board")
