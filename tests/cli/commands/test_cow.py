"""vscsihba cow."""

import json
from pathlib import Path

import pytest

from vscsihba.cli.main import main
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

MIB = 1 << 20


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """One that holds four bytes."""
    base, over = tmp_path / "base.img", tmp_path / "over.cow"
    base.write_bytes(b"base" * (MIB // 4))
    with build({"handler": "cow", "path": str(over), "create": True, "next": str(base)}) as disk:
        write(disk, 0, b"over")
    return over


def test_status(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cow", "status", str(overlay)]) == 0
    printed = capsys.readouterr().out
    assert "stored        64.0 KiB" in printed
    assert "committing    no" in printed
    assert main(["cow", "status", str(overlay), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == MIB


def test_commit(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = overlay.parent / "base.img"
    assert main(["cow", "commit", str(overlay), str(base)]) == 0
    assert capsys.readouterr().out == f"{overlay} is committed, and now empty\n"
    assert base.read_bytes()[:8] == b"overbase"
    assert main(["cow", "status", str(overlay), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 0


def test_discard(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cow", "discard", str(overlay), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"discarded": str(overlay)}
    with build({"handler": "cow", "path": str(overlay), "next": str(overlay.parent / "base.img")}) as disk:
        assert read(disk, 0, 4) == b"base"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "{none}"], "no such"),
        (["commit", "{overlay}", "{other}"], "is not the base of the overlay"),
        (["commit", "{overlay}"], "required: BASE"),
        (["look"], "invalid choice: 'look'"),
        ([], "required: VERB"),
    ],
)
def test_refusals_are_one_line(
    overlay: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = overlay.parent / "other.img"
    other.write_bytes(bytes(MIB))
    places = {"overlay": overlay, "other": other, "none": overlay.parent / "none"}
    assert main(["cow", *(word.format(**places) for word in words)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert message in printed.err
