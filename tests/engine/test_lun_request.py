"""What is wanted of a LUN, compared with what an earlier engine noted."""

from pathlib import Path

from vscsihba.engine.lun_request import LunRequest

FILE = {"handler": "file", "path": "/srv/a.img"}


def test_no_note_is_no_contradiction(tmp_path: Path) -> None:
    assert LunRequest(0, FILE).agrees(tmp_path)


def test_the_same_disk_agrees(tmp_path: Path) -> None:
    LunRequest(0, FILE).note(tmp_path)
    assert LunRequest(0, dict(FILE)).agrees(tmp_path)


def test_what_makes_a_medium_does_not_name_it(tmp_path: Path) -> None:
    LunRequest(0, {**FILE, "create": True, "size": 512}).note(tmp_path)
    assert LunRequest(0, FILE).agrees(tmp_path)


def test_another_disk_does_not_agree(tmp_path: Path) -> None:
    LunRequest(0, {"handler": "readonly", "next": FILE}).note(tmp_path)
    assert not LunRequest(0, FILE).agrees(tmp_path)
    assert not LunRequest(0, {"handler": "readonly", "next": FILE}, removable=True).agrees(tmp_path)
    assert LunRequest(1, FILE).agrees(tmp_path)


def test_a_note_can_be_forgotten(tmp_path: Path) -> None:
    request = LunRequest(0, FILE)
    request.note(tmp_path)
    request.forget(tmp_path)
    request.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_next_owner_goes_by_what_was_noted_last(tmp_path: Path) -> None:
    legs = {"handler": "mirror", "path": "/srv/m", "create": True, "legs": ["/srv/a", "/srv/b"]}
    changed = {**legs, "legs": ["/srv/b", "/srv/c"]}
    assert LunRequest(0, legs).as_noted(tmp_path) == LunRequest(0, legs)
    LunRequest(0, legs).note(tmp_path)
    assert LunRequest(0, legs).as_noted(tmp_path) == LunRequest(0, legs)
    LunRequest(0, changed).note(tmp_path)
    assert LunRequest(0, legs).as_noted(tmp_path) == LunRequest(0, changed)
    assert not LunRequest(0, legs).agrees(tmp_path)
    assert LunRequest(0, legs).as_noted(tmp_path).agrees(tmp_path)
