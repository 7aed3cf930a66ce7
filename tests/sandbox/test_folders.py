"""The folder of the guest's memory."""

from pathlib import Path

import pytest

from vscsihba.errors import SandboxError
from vscsihba.sandbox import folders


def test_the_first_folder_that_fits_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["none", "has a blank", "fits", "later"]
    for name in names[1:]:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folders, "candidates", lambda: iter(tmp_path / name for name in names))
    made = folders.make_folder(1 << 20)
    assert made.parent == tmp_path / "fits"
    assert made.stat().st_mode & 0o777 == 0o700


def test_every_folder_has_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "candidates", lambda: iter([tmp_path, tmp_path / "none"]))
    with pytest.raises(
        SandboxError, match=f"{tmp_path} has .* free, {tmp_path}/none does not exist; set TMPDIR"
    ):
        folders.make_folder(1 << 60)
    assert list(tmp_path.iterdir()) == []
