"""Files of records: there and back, and refused where they do not fit."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tvm

from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.records import records
from schedules.records.digest import digest
from schedules.records.kinds.tiled import TiledTask
from schedules.records.records import Processor, Record, Records
from schedules.targets import Tile
from schedules.targets.aarch64_neon import AARCH64_NEON

TASK = TiledTask(conv=Convolution(1, 8, 8, 32, 64), packing=Packing(32, 16), outputs=(("float32", None),))
OTHER = TiledTask(conv=Convolution(1, 8, 8, 32, 32), packing=Packing(32, 16), outputs=(("float32", None),))
PROCESSOR = Processor("aarch64_neon", "cortex-a72")
TILE = Tile(pixels=3, lanes=16, quantum=8, rows=1, word=8, blocks_outside=True)
KERNEL = digest(TASK, TILE, AARCH64_NEON)
RECORDS = Records(PROCESSOR, "instructions", "By hand.", {TASK.key: Record(TILE, 2.0, 3.0, KERNEL)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / records.FILE).write_text(RECORDS.to_json())
    return tmp_path


def test_there_and_back(folder: Path) -> None:
    assert records.read(folder / records.FILE) == RECORDS
    choose = records.tuned(folder, PROCESSOR, AARCH64_NEON)
    assert choose(OTHER) is None and not choose.used
    assert choose(TASK) == TILE
    [used] = choose.used.values()
    assert (used["cost"], used["default_cost"], used["unit"]) == (2.0, 3.0, "instructions")
    assert used["tile"] == asdict(TILE) and used["layer"] == TASK.title


def test_a_record_is_older_than_a_field_of_its_tile(folder: Path) -> None:
    content = json.loads((folder / records.FILE).read_text())
    del content["records"][0]["tile"]["abreast"]
    (folder / records.FILE).write_text(json.dumps(content))
    assert records.read(folder / records.FILE) == RECORDS


def test_an_empty_file_of_records_is_one(tmp_path: Path) -> None:
    empty = Records(PROCESSOR, "seconds", "By hand.", {})
    (tmp_path / "empty.json").write_text(empty.to_json())
    assert records.read(tmp_path / "empty.json") == empty


def test_what_a_second_thread_costs_is_of_the_processor(folder: Path) -> None:
    assert records.tuned(folder, PROCESSOR, AARCH64_NEON).kernels == AARCH64_NEON
    (folder / records.FILE).write_text(replace(RECORDS, wake_ns=2500.5).to_json())
    assert records.tuned(folder, PROCESSOR, AARCH64_NEON).kernels == replace(AARCH64_NEON, wake_ns=2500.5)


def test_another_processor_and_another_tvm_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"is for cortex-a72 .* and not for cortex-a53"):
        records.tuned(folder, Processor("aarch64_neon", "cortex-a53"), AARCH64_NEON)
    content = json.loads((folder / records.FILE).read_text())
    (folder / records.FILE).write_text(json.dumps({**content, "tvm": "0.26.0"}))
    with pytest.raises(ValueError, match=f"made with TVM 0.26.0, and this is TVM {tvm.__version__}"):
        records.tuned(folder, PROCESSOR, AARCH64_NEON)
    with pytest.raises(ValueError, match="has no records.json"):
        records.tuned(folder / "nowhere", PROCESSOR, AARCH64_NEON)


def test_what_ships_is_taken_for_its_processor_and_tvm_alone(folder: Path) -> None:
    assert records.shipped(PROCESSOR, AARCH64_NEON, folder)(TASK) == TILE
    assert records.shipped(Processor("aarch64_neon", "cortex-a53"), AARCH64_NEON, folder)(TASK) is None


def test_what_ships_can_be_read() -> None:
    for path in records.SHIPPED.glob("*.json"):
        found = records.read(path)
        assert found.obtained and all(len(record.kernel) == 16 for record in found.best.values())


def changed(**changes: object) -> str:
    content = json.loads(RECORDS.to_json())
    [record] = content["records"]
    tile = {**record["tile"], **changes.pop("tile", {})}  # type: ignore[dict-item]
    record = {**record, "tile": tile, **changes.pop("record", {})}  # type: ignore[dict-item]
    return json.dumps({**content, "records": [record], **changes})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a file of records"),
        ("[" * 100000, "not a file of records"),
        ("[]", "schema version None"),
        (changed(schema_version=2), "schema version 2"),
        (changed(unit="hours"), "its unit is 'hours'"),
        (changed(unit="hours" * 1000), "its unit is 'hours.{5,30}'"),
        (changed(tvm=27), "should be texts"),
        (changed(processor=None), "should be texts"),
        (changed(wake_ns=0), r"its wake_ns is 0, and not a number above 0 and up to 1e\+09"),
        (changed(wake_ns="6000"), "its wake_ns is '6000', and not"),
        (changed(wake_ns=-5.5), "its wake_ns is -5.5, and not"),
        (changed(wake_ns=float("nan")), "its wake_ns is nan, and not"),
        (changed(wake_ns=1e300), r"its wake_ns is 1e\+300, and not"),
        (changed(wake_ns=10**400), r"its wake_ns is 10+\.\.\.0+, and not"),
        (changed(wake_ns=7).replace("7", "7" * 5000), "not a file of records"),
        (changed(records=7), "damaged"),
        (changed(records=[7]), "what it is for"),
        (changed(record={"task": "x"}), "what it is for"),
        (changed(record={"task": {"kind": "knitting"}}), "of the unknown kind 'knitting'"),
        (changed(record={"cost": -1}), "its cost is -1, and not a number above 0"),
        (changed(record={"cost": True}), "its cost is True, and not a number above 0"),
        (changed(record={"cost": 10**400}), "its cost is 10+"),
        (changed(record={"default_cost": float("nan")}), "its default_cost is nan, and not"),
        (changed(record={"default_cost": 1e300}), r"its default_cost is 1e\+300, and not"),
        (changed(record={"tile": 3}), "a tile has pixels"),
        (changed(tile={"extra": 3}), "a tile has pixels"),
        (changed(record={"kernel": 7}), "the kernel of a record is not a digest"),
        (changed(tile={"pixels": 1e3}), "the pixels of a tile is 1000.0"),
        (changed(tile={"pixels": None}), "the pixels of a tile is None"),
        (changed(tile={"lanes": 1 << 40}), "the lanes of a tile"),
        (changed(tile={"blocks_outside": 1}), "the blocks_outside of a tile is 1"),
    ],
)
def test_damage_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        records.read(path)
    assert str(path) in str(caught.value)


def test_a_tile_that_the_kernel_cannot_have_is_refused(folder: Path) -> None:
    (folder / records.FILE).write_text(changed(tile={"rows": 5}))
    with pytest.raises(ValueError, match=r"binary 1x1, 8x8x32 to 64, floats that cannot be: 5 rows"):
        records.tuned(folder, PROCESSOR, AARCH64_NEON)(TASK)


@pytest.mark.parametrize("kernel", [{"kernel": "0" * 16}, {}])
def test_a_record_of_a_kernel_that_has_changed_is_not_used_and_that_is_said(
    folder: Path, kernel: dict[str, str]
) -> None:
    """Nor one from before kernels had digests."""
    content = json.loads(RECORDS.to_json())
    del content["records"][0]["kernel"]
    content["records"][0].update(kernel)
    (folder / records.FILE).write_text(json.dumps(content))
    choose = records.tuned(folder, PROCESSOR, AARCH64_NEON)
    assert choose.remark == ""
    assert choose(TASK) is None and choose(TASK) is None and not choose.used
    assert choose.remark == (
        f"1 record of {folder / records.FILE} is not used, since the kernels have changed that they were "
        "measured on; tune again for: binary 1x1, 8x8x32 to 64, floats."
    )
