"""A signal ends a command in one word, whatever is running when it comes."""

import json
import os
import signal

import pytest
import tvm
import typer

from bibench_tvm.cli.console import print_json, reporting
from bibench_tvm.cli.errors import BibenchError


@tvm.transform.module_pass(opt_level=0)
def stopped_within_tvm(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    os.kill(os.getpid(), int(module.attrs["signal"]))
    return module


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("taken_for_damage", [False, True])
def test_within_a_pass(number: int, taken_for_damage: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """TVM makes an error of its own of it, which an importer may take for a damaged file."""
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as ended, reporting(as_json=False, debug=False):
        try:
            stopped_within_tvm(tvm.IRModule(attrs={"signal": int(number)}))
        except Exception as error:
            if taken_for_damage:
                raise BibenchError("The file is damaged.") from error
            raise
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.strip() == "Error: Stopped."
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_errors_are_no_signals(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reporting(as_json=False, debug=False):
        raise BibenchError("The file is damaged.")
    assert capsys.readouterr().err.strip() == "Error: The file is damaged."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_has_said_how_it_ended_says_it_once(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As a sweep does that was stopped: it lists what is done, in one object."""
    with pytest.raises(typer.Exit) as ended, reporting(as_json=True, debug=False):
        try:
            os.kill(os.getpid(), int(number))
        except KeyboardInterrupt:
            print_json({"stopped": 3})
        raise typer.Exit(1)
    assert ended.value.exit_code == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"stopped": 3}
    assert not said.err
