"""The specification of a LUN, compared with the note of an earlier engine."""

import json
from pathlib import Path

import msgspec

from vscsihba.config.model import Lun
from vscsihba.engine.owning.appearance import Appearance, Tuning
from vscsihba.engine.owning.lun_spec import LunSpec

FILE = {"handler": "file", "path": "/srv/a.img"}


def test_no_note_is_no_contradiction(tmp_path: Path) -> None:
    assert LunSpec(0, FILE).agrees(tmp_path)


def test_the_same_disk_agrees(tmp_path: Path) -> None:
    LunSpec(0, FILE).note(tmp_path)
    assert LunSpec(0, dict(FILE)).agrees(tmp_path)


def test_what_makes_a_medium_does_not_name_it(tmp_path: Path) -> None:
    LunSpec(0, {**FILE, "create": True, "size": 512}).note(tmp_path)
    assert LunSpec(0, FILE).agrees(tmp_path)


def test_another_way_of_writing_a_stack_is_the_same_disk(tmp_path: Path) -> None:
    legs = [FILE, {"handler": "memory", "size": 1 << 20}]
    LunSpec(0, {"handler": "mirror", "path": "/srv/m", "legs": legs}).note(tmp_path)
    shorter: list[object] = ["/srv/a.img", {"handler": "memory", "size": "1MiB", "block_size": 512}]
    same = LunSpec(0, {"handler": "mirror", "path": "/srv/m", "create": True, "legs": shorter})
    assert same.agrees(tmp_path)
    assert same.as_noted(tmp_path) is same


def test_a_stack_that_cannot_be_meant_is_compared_as_it_is_written(tmp_path: Path) -> None:
    LunSpec(0, {"handler": "file"}).note(tmp_path)
    assert LunSpec(0, {"handler": "file"}).agrees(tmp_path)
    assert not LunSpec(0, FILE).agrees(tmp_path)


def test_another_disk_does_not_agree(tmp_path: Path) -> None:
    LunSpec(0, {"handler": "readonly", "next": FILE}).note(tmp_path)
    assert not LunSpec(0, FILE).agrees(tmp_path)
    assert not LunSpec(0, {"handler": "readonly", "next": FILE}, removable=True).agrees(tmp_path)
    assert LunSpec(1, FILE).agrees(tmp_path)


def test_a_note_can_be_forgotten(tmp_path: Path) -> None:
    request = LunSpec(0, FILE)
    request.note(tmp_path)
    request.forget(tmp_path)
    request.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_next_owner_goes_by_what_was_noted_last(tmp_path: Path) -> None:
    legs = {"handler": "mirror", "path": "/srv/m", "create": True, "legs": ["/srv/a", "/srv/b"]}
    changed = {**legs, "legs": ["/srv/b", "/srv/c"]}
    assert LunSpec(0, legs).as_noted(tmp_path) == LunSpec(0, legs)
    LunSpec(0, legs).note(tmp_path)
    assert LunSpec(0, legs).as_noted(tmp_path) == LunSpec(0, legs)
    LunSpec(0, changed).note(tmp_path)
    assert LunSpec(0, legs).as_noted(tmp_path) == LunSpec(0, changed)
    assert not LunSpec(0, legs).agrees(tmp_path)
    assert LunSpec(0, legs).as_noted(tmp_path).agrees(tmp_path)


def test_what_a_document_says_of_a_lun_comes_along() -> None:
    lun = Lun(
        3,
        "a",
        read_only=True,
        removable=True,
        serial="S-1",
        wwn="naa.5001405000000001",
        vendor="ACME",
        product="Thing",
        queue_depth=32,
        max_sectors=64,
        command_timeout=90,
        queue_full_timeout=5,
    )
    appearance = Appearance(
        read_only=True,
        serial="S-1",
        wwn="naa.5001405000000001",
        vendor="ACME",
        product="Thing",
        max_sectors=64,
    )
    tuning = Tuning(queue_depth=32, command_timeout=90, queue_full_timeout=5)
    wanted = LunSpec(3, FILE, removable=True, appearance=appearance, tuning=tuning)
    assert LunSpec.of(lun, dict(FILE)) == wanted
    assert LunSpec.of(Lun(3, "a"), dict(FILE)) == LunSpec(3, FILE)
    assert msgspec.convert(msgspec.to_builtins(wanted), LunSpec) == wanted


def test_disk_that_looks_otherwise_does_not_agree(tmp_path: Path) -> None:
    LunSpec(0, FILE, appearance=Appearance(serial="S-1")).note(tmp_path)
    assert not LunSpec(0, FILE).agrees(tmp_path)
    assert not LunSpec(0, FILE, appearance=Appearance(serial="S-2")).agrees(tmp_path)
    assert LunSpec(0, FILE, appearance=Appearance(serial="S-1"), tuning=Tuning(8)).agrees(tmp_path)


def test_note_of_a_plain_disk_is_as_it_ever_was(tmp_path: Path) -> None:
    LunSpec(0, FILE).note(tmp_path)
    assert json.loads((tmp_path / "lun0.json").read_text()).keys() == {"document", "now", "removable"}
