"""A report of everything, written once, and reports of folders that tests make."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bibench_tvm.report.__main__ import app
from tests.bibench_tvm.report.made import folder_of_everything


@pytest.fixture(scope="session")
def write_report() -> Callable[..., Any]:
    """Runs the command with these arguments and gives the object that it printed."""

    def run(*arguments: object, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="session")
def full_page(everything: Path, write_report: Callable[..., Any], tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(everything, "--out", out, "--paper")
    return out
