from pathlib import Path

import pytest

from vscsihba.handlers import surviving
from vscsihba.handlers.surviving import Surviving, forget, recall


def test_is_there_until_it_is_forgotten() -> None:
    row = Surviving("one")
    row.put(3, b"abc")
    row.put(1, b"x")
    row.close(forget=False)
    assert recall("one") == b"\0x\0abc"
    forget("one")
    forget("one")
    assert recall("one") == b""


def test_is_forgotten_when_it_was_closed_properly() -> None:
    row = Surviving("one")
    row.put(0, b"abc")
    row.close(forget=True)
    assert recall("one") == b""


def test_is_not_found_after_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Surviving("one")
    row.put(0, b"abc")
    row.close(forget=False)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(surviving, "_BOOT_ID", tmp_path / "boot_id")
    assert recall("one") == b""


def test_what_cannot_be_stored_is_an_error() -> None:
    row = Surviving("one")
    with pytest.raises(OSError, match="Invalid argument"):
        row.put((1 << 63) - 2, b"abcd")
    row.close(forget=True)
