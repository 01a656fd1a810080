"""The command that takes every architecture through the compiler: what falls short, and going on."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import architectures

RUN = ["--architectures", "resnet20@small,fsmn@small", "--algorithms", "bnn", "--out"]


def test_cases_are_not_repeated_and_one_that_falls_short_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def case(arch: str, algorithm: str, target: str) -> dict[str, Any]:
        tried.append(arch)
        short = arch == "fsmn@small"
        return {"arch": arch, "algorithm": algorithm, "target": target, "binary": 4 - short, "should_be": 4,
                "passed": True, "reason": "b stays float" if short else "", "seconds": 1.0}  # fmt: skip

    monkeypatch.setattr(architectures, "try_case", case)
    out = tmp_path / "results.jsonl"
    first = CliRunner().invoke(architectures.app, [*RUN, str(out)])
    assert first.exit_code == 1 and "1 of 2 cases fall short." in first.output
    assert len(out.read_text().splitlines()) == 2
    out.write_text(out.read_text().splitlines()[0] + '\n{"arch": "fsm')  # killed while it wrote
    again = CliRunner().invoke(architectures.app, [*RUN, str(out)])
    assert tried == ["resnet20@small", "fsmn@small", "fsmn@small"] and again.exit_code == 1
    CliRunner().invoke(architectures.app, [*RUN, str(out)])
    assert len(tried) == 3
    wrong = CliRunner().invoke(architectures.app, ["--architectures", "resnet19@small", "--out", str(out)])
    assert wrong.exit_code == 2


def test_a_case(tmp_path: Path) -> None:
    result = architectures.try_case("pointnet@small", "bnn", "host")
    assert not architectures.falls_short(result), result
    assert result["binary"] == result["should_be"] > 10
    assert json.loads(json.dumps(result)) == result
    broken = architectures.try_case("pointnet@small", "bnn", "no such board")
    assert architectures.falls_short(broken) and "no such board" in broken["reason"]
