"""The inner loop of small programs for aarch64, with instructions as an assembler writes them."""

import struct
from pathlib import Path

import pytest

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.tuning.inner_loop import (
    Executed,
    ModelUnavailable,
    code_of,
    cycles,
    cycles_per_instruction,
    disassemble,
    inner_loop,
    missing,
    multiplications,
    popcounts,
    read_counts,
)

NOP = 0xD503201F
ADD = 0x91000400  # add x0, x0, #1
CNT16, CNT8 = 0x4E205820, 0x0E205820  # cnt v0.16b, v1.16b; cnt v0.8b, v1.8b
FMLA, FMLA_LANE = 0x4E22CC20, 0x4F821020  # fmla v0.4s, v1.4s, v2.4s; fmla v0.4s, v1.4s, v2.s[0]
FMLA_2S = 0x0E22CC20  # fmla v0.2s, v1.2s, v2.2s
FADD = 0x4E20D400  # fadd v0.4s, v0.4s, v0.4s
BACK_1, BACK_2, BACK_3 = 0xB5FFFFE0, 0x54FFFFC1, 0x17FFFFFD  # cbnz x0, #-4; b.ne #-8; b #-12


def program(*code: int, counts: dict[int, int] | None = None) -> list[Executed]:
    """From address 4096 on; counts: of the instructions by number, else 1."""
    return [Executed(4096 + 4 * i, c, (counts or {}).get(i, 1)) for i, c in enumerate(code)]


@pytest.mark.parametrize(
    ("jump", "words"),
    [
        (0x54FFFFC1, 2),  # b.ne #-8
        (0xB5FFFFE0, 1),  # cbnz x0, #-4
        (0x34FFFFC3, 2),  # cbz w3, #-8
        (0x3607FFC0, 2),  # tbz w0, #0, #-8
        (0xB70FFFE0, 1),  # tbnz x0, #33, #-4
        (0x17FFFFFD, 3),  # b #-12
        (0x54000040, None),  # b.eq #8
        (0x14000002, None),  # b #8
        (0x97FFFFFE, None),  # bl #-8, a call
        (0xD65F03C0, None),  # ret
    ],
)
def test_every_branch_backwards_is_a_loop(jump: int, words: int | None) -> None:
    code = program(NOP, NOP, NOP, CNT16, jump, NOP)
    assert inner_loop(code) == (code[4 - words : 5] if words else [])


def test_the_loop_inside_a_loop_is_the_inner_one() -> None:
    code = program(CNT16, ADD, CNT8, BACK_1, ADD, 0x54FFFF61, NOP)  # b.ne #-20, around the other
    assert inner_loop(code) == code[2:4]


def test_of_several_loops_it_is_the_one_with_most_products() -> None:
    """Counts and lanes both matter: 10 times 64 bits are less than 6 times 128."""
    code = program(CNT8, BACK_1, CNT16, BACK_1, ADD, BACK_1, counts={0: 10, 2: 6, 4: 1000})
    assert inner_loop(code) == code[2:4]
    code = program(CNT8, BACK_1, CNT16, BACK_1, counts={0: 13, 2: 6})
    assert inner_loop(code) == code[:2]
    code = program(CNT16, BACK_1, FMLA, BACK_1)
    assert inner_loop(code) == code[:2]
    assert inner_loop(code, multiplications) == code[2:]


def test_products_of_an_instruction() -> None:
    found = [(popcounts(i), multiplications(i)) for i in program(CNT16, CNT8, FMLA, FMLA_LANE, FMLA_2S, NOP)]
    assert found == [(128, 0), (64, 0), (0, 4), (0, 4), (0, 0), (0, 0)]


def test_counts_are_read_as_the_plugin_writes_them(tmp_path: Path) -> None:
    (tmp_path / "counts").write_text("1000 4e205820 7\n1004 d503201f 12\n")
    assert read_counts(tmp_path / "counts") == {(0x1000, CNT16): 7, (0x1004, NOP): 12}


def object_file(*sections: tuple[int, int, list[int]]) -> bytes:
    """A 64-bit ELF object of sections (kind, flags, words), their table at its end."""
    blob, table = bytes(64), b""
    for kind, flags, words in sections:
        data = struct.pack(f"<{len(words)}I", *words)
        table += struct.pack("<IIQQQQIIQQ", 0, kind, flags, 0, len(blob), len(data), 0, 0, 4, 0)
        blob += data
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 183, 1, 0, 0, len(blob), 0, 64, 0, 0, 64, 0, 0
    )
    header = header[:58] + struct.pack("<HHH", 64, len(sections), 0)
    return header + blob[64:] + table


def test_the_code_of_an_object_is_that_of_its_sections_of_code() -> None:
    compiled = object_file(
        (0, 0, []),
        (1, 6, [CNT16, BACK_1]),  # program, allocated and executable
        (1, 3, [BACK_2]),  # data
        (8, 6, [BACK_3]),  # no bits in the file
        (1, 6, [NOP, BACK_2]),  # which goes to before its own section
    )
    found = code_of(compiled)
    assert [i.code for i in found] == [CNT16, BACK_1, NOP, BACK_2]
    assert [i.count for i in found] == [1] * 4
    assert inner_loop(found) == found[:2]


def test_no_loop_goes_from_one_section_into_another() -> None:
    found = code_of(object_file((1, 6, [CNT16]), (1, 6, [BACK_1])))
    assert [i.code for i in inner_loop(found)] == [BACK_1]


def test_cycles_are_those_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Additions that wait for one another take as long as LLVM's tables say: 6, 5 and 2 cycles."""
    body = program(FADD, FADD)
    for cpu, latency in {"cortex-a53": 6, "cortex-a72": 5, "neoverse-n1": 2}.items():
        assert cycles(body, cpu) == pytest.approx(2 * latency, abs=0.1)
    text = disassemble(program(CNT16, FMLA_LANE), "cortex-a72").split()
    assert text[-7:] == ["cnt", "v0.16b,", "v1.16b", "fmla", "v0.4s,", "v1.4s,", "v2.s[0]"]
    assert cycles_per_instruction(object_file((1, 6, [NOP, FADD])), "cortex-a76", popcounts) == 1.0
    compiled = object_file((1, 6, [FADD, FADD, BACK_2]))
    found = cycles_per_instruction(compiled, "cortex-a76", popcounts)  # as a neoverse-n1: 4 cycles
    assert found == pytest.approx(4 / 3, abs=0.1)
    assert missing() == ""
    with pytest.raises(BibenchError, match="llvm-mca failed: "):
        cycles(body, "no-such-core")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ModelUnavailable, match="llvm-mc, version 19 or newer, is not installed. Type: "):
        cycles(body, "cortex-a72")
    assert missing().startswith("llvm-mca, version 19")
