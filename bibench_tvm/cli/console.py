"""What every command shares: progress on standard error, one JSON object on standard output, exit codes."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console

from bibench_tvm.cli.arguments import empty_path, help_line, parser_sentence
from bibench_tvm.cli.errors import BibenchError, UsageError, first_line
from bibench_tvm.cli.standard_output import OutputLost, watched
from rpc.missing import sentence_for

# Without markup, since square brackets are common in the names of layers.
stderr = Console(stderr=True, highlight=False, markup=False)

stdout = Console(highlight=False, markup=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output.")]
Tracker = Annotated[
    str, typer.Option(help="HOST:PORT of the tracker; with --board, left out: 127.0.0.1:9190.")
]
# Beyond what any machine has: a number with a few digits too many is refused, and does not run forever.
MOST_THREADS = 1024

Wait = Annotated[float, typer.Option(min=0, max=604800, help="Seconds to wait for a board that is free.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class _Aside:
    """In the place of standard output, `kept`, which is for the object alone: what else is printed, as by an
    algorithm of the user's own, goes to standard error."""

    # No io.TextIOBase, which flushes once more when nobody hears any longer that it failed.
    def __init__(self, kept: TextIO) -> None:
        self.kept = kept

    def flush(self) -> None:
        sys.stderr.flush()
        self.kept.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def print_json(value: dict[str, Any]) -> None:
    place = sys.stdout.kept if isinstance(sys.stdout, _Aside) else sys.stdout
    place.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def results(as_json: bool) -> Console:
    """Where what a command found is printed for people; with --json, standard output is for the object."""
    return stderr if as_json else stdout


def refuse_tracker_alone(tracker: str, boards: object) -> None:
    """Raise UsageError for a --tracker of which no board is asked."""
    if tracker and not boards:
        raise UsageError("--tracker HOST:PORT goes with --board KEY.")


@contextlib.contextmanager
def reporting(*, as_json: bool, debug: bool) -> Iterator[None]:
    """Turn what goes wrong into a sentence and an exit code: 2 for wrong arguments, 1 for work that failed.

    ValueError counts as wrong arguments: the packages below raise it for what the user named or gave them.
    """
    aside: Any = _Aside(sys.stdout) if as_json and not isinstance(sys.stdout, _Aside) else sys.stdout
    try:
        with contextlib.redirect_stdout(aside), _terminable():
            yield
    except (typer.Exit, typer.Abort, OutputLost):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        if isinstance(error, KeyboardInterrupt):
            sentence = "Stopped."
        elif isinstance(error, OSError) and error.filename and error.strerror:
            sentence = f"{error.filename}: {error.strerror}."
        elif isinstance(error, (BibenchError, OSError)) or _is_sentence(error):
            sentence = str(error)
        elif missing := sentence_for(error):
            sentence = missing
        elif _is_of_boards(error):
            sentence = str(error)
        else:
            reason = first_line(error)
            sentence = (
                f"This is a fault of the program ({type(error).__name__}: {reason}) --debug shows where."
            )
        stderr.print(f"Error: {sentence}", style="red", soft_wrap=True)
        if as_json:
            print_json({"error": sentence})
        raise typer.Exit(2 if _is_sentence(error) or isinstance(error, UsageError) else 1) from None


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """Show the warnings of the packages below as sentences, each once."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = _note  # type: ignore[assignment]
        yield


def _note(message: Warning | str, *rest: object) -> None:
    stderr.print(f"Note: {message}", style="yellow", soft_wrap=True)


def _is_sentence(error: BaseException) -> bool:
    """A ValueError of the packages below; TVM's and PyTorch's are of that kind too, and pages long."""
    return isinstance(error, ValueError) and len(str(error).splitlines()) == 1


def _is_of_boards(error: BaseException) -> bool:
    """Whether a tracker, a board or an emulator failed: their message is a sentence."""
    from rpc.emulation.qemu import EmulationFailed
    from rpc.listing import RemoteError

    return isinstance(error, (RemoteError, EmulationFailed))


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Have all that the block prints written before it ends. Where that fails, end the process with a
    sentence, and in silence where there is nobody to tell."""
    outside, sys.stdout = sys.stdout, watched()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputLost as lost:
        if not lost.unread:
            with contextlib.suppress(OSError):  # both are one full file
                stderr.print(f"Error: {lost}", style="red", soft_wrap=True)
        sys.exit(1)
    finally:
        sys.stdout = outside


def run_command(app: typer.Typer, name: str) -> NoReturn:
    """Run a command. Arguments that cannot be parsed end as every other error does: in a sentence, and with
    `--json` in an object."""
    command = typer.main.get_command(app)
    with standard_output():
        if empty := empty_path(command, sys.argv[1:]):
            _refuse(f"{empty} is empty, and should be a path.", f"{name} --help")
        try:
            sys.exit(command.main(prog_name=name, standalone_mode=False) or 0)
        except typer.Abort:
            sys.exit(1)
        except Exception as error:
            if not hasattr(error, "format_message"):  # the parser's own errors have it
                raise
            _refuse(parser_sentence(error), help_line(error, name))


def _refuse(sentence: str, more: str) -> NoReturn:
    """End the process, as of arguments that make no sense; more: the command whose help says more."""
    stderr.print(f"Error: {sentence} `{more}` says more.", style="red", soft_wrap=True)
    if "--json" in sys.argv:
        print_json({"error": sentence})
    sys.exit(2)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, so that it clears up behind itself.

    Where either comes while TVM calls a function of ours, TVM makes an error of its own of it."""
    asked = False

    def stop(number: int, frame: object) -> NoReturn:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and it is not ignored, as by nohup
        signals.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise  # the command has said how it ended
    except Exception as error:
        if asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def phase(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Say what is being done, and how long it took. Gives a function to call after each of `total` steps.

    A terminal shows the steps and the time left meanwhile; elsewhere there is one line at the end.
    """
    # Slow to import, and what runs on a board has no phases.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed
    from rich.progress import TimeRemainingColumn as Remaining

    start = time.monotonic()
    steps = (
        [] if total is None else [BarColumn(), MofNCompleteColumn(), Remaining(), TextColumn("left, after")]
    )
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), *steps, Elapsed()]
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
    stderr.print(f"{time.monotonic() - start:6.1f} s  {what}")
