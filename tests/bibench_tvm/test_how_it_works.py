"""docs/how-it-works.md is what the compiler does: its program is run and its listings are made anew."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"
SECOND = ('"name": "2"', "binary_convolution1", "alloc2")  # where the second layer begins
LISTING = re.compile(r"(### `(\w+)`\n.*?```text\n)(.*?)(```)", re.DOTALL)


def shortened(line: str) -> str:
    line = re.sub(r'R\.Tensor\(\(([\d, ]*)\), dtype="(\w+)"\)', r"\2[\1]", line.strip())
    line = re.sub(r'metadata\["ir\.GenericConst"\]\[(\d+)\]', r"constant\1", line)
    line = re.sub(r', ret_ty=metadata\["[\w.]+"\]\[\d+\]', "", line)
    return re.sub(r'R\.const\(([-\d.]+), "float32"\)', r"\1", line)


def listing(dump: Path) -> str:
    """What a dump holds of the first layer."""
    body = dump.read_text().split("def main(")[1].splitlines()[1:]
    lines = [line for line in body if " = " in line or line.strip().startswith("cls.")]
    lines = [line for line in lines if "cls = Module" not in line]
    end = next(i for i, line in enumerate(lines) if any(mark in line for mark in SECOND))
    return "".join(shortened(line) + "\n" for line in lines[:end])


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    text = PAGE.read_text()
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    listings = {dump.stem[3:]: listing(dump) for dump in sorted((tmp_path / "ir").iterdir())}
    anew = LISTING.sub(lambda m: m[1] + listings[m[2]] + m[4], text)
    if request.config.getoption("--renew-golden"):
        PAGE.write_text(anew)
        return
    assert anew == text
    shown = [name for _, name, _, _ in LISTING.findall(text)]
    # Names of variables change where nothing else does.
    plain = {name: re.sub(r"\b(lv|gv)\d*\b", "v", found) for name, found in listings.items()}
    order = list(listings)
    unlike = [name for before, name in zip(order, order[1:], strict=False) if plain[before] != plain[name]]
    assert shown == [order[0], *unlike]
