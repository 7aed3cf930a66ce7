"""Completion in the shell: paths, commands, names, values, sizes and files."""

from pathlib import Path

import pytest

from vscsihba.shell import suggestions
from vscsihba.shell.session import Session

Offered = list[str]


def offered(session: Session, line: str) -> set[str]:
    """Return the completions at the end of a line, as configshell computes them."""
    _, path, command, pparams, kparams = session._parse_cmdline(line)
    text = "" if line.endswith(" ") else line.rsplit(" ", maxsplit=1)[-1]
    if not command and text == path:
        token = "path"
    elif text == command and not pparams and not kparams:
        token = "command"
    else:
        token = "kparam" if "=" in text else "pparam"
    session._refresh()
    return {
        found.strip() for found in session._dispatch_completion(path, command, pparams, kparams, text, token)
    }


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("/hb", {"/hbas/"}),
        ("/hbas/hba0/", {"/hbas/hba0/lun0"}),
        ("/backstores/memory/", {"/backstores/memory/d1/", "/backstores/memory/d2/"}),
        ("/backstores/fi", {"/backstores/file"}),
        ("sav", {"saveconfig"}),
        ("/hbas/hba0 cre", {"create"}),
        ("/hbas/hba0 create ", {"d2", "read_only=", "lun="}),
        ("/hbas/hba0 create d2 read_only=", {"read_only=true", "read_only=false"}),
        ("/hbas/hba0 delete ", {"lun0"}),
        ("/hbas delete ", {"hba0"}),
        ("/backstores/file create name=x ", {"path=", "size="}),
        ("/backstores/file create name=x size=1", {"size=1GiB", "size=1MiB", "size=1TiB"}),
        ("/backstores/file create name=x block_size=5", {"block_size=512"}),
        ("/backstores/cow create name=x ", {"next=", "path="}),
        ("/backstores/split create name=x ", {"legs="}),
        ("/backstores/memory delete ", {"d1", "d2"}),
        ("/hbas/hba0/lun0 resize 20", {"20GiB", "20MiB", "20TiB"}),
        ("/hbas/hba0/lun0 set ", {"attribute"}),
        ("/hbas/hba0/lun0 set attribute qu", {"queue_depth=", "queue_full_timeout="}),
        ("/hbas/hba0/lun0 set attribute removable=t", {"removable=true"}),
        ("/hbas/hba0/lun0 get attribute ser", {"serial"}),
        ("/backstores/memory/d1 set attribute block_size=40", {"block_size=4096"}),
        ("clearconfig confirm=", {"confirm=true", "confirm=false"}),
    ],
)
def test_tab_offers_what_can_be_said(line: str, some: set[str], session: Session, disk: None) -> None:
    assert offered(session, line) >= some


def test_backstores_that_are_shown_are_not_offered_again(session: Session, disk: None) -> None:
    assert "d1" not in offered(session, "/hbas/hba0 create ")


def test_what_nobody_knows_has_no_completion(session: Session) -> None:
    assert session._complete("x", 0) is None


def test_files_are_offered_as_they_are_typed(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disks/deep").mkdir(parents=True)
    (tmp_path / "disks/a.img").touch()
    (tmp_path / "disks/b.img").touch()
    line = f"/backstores/file create name=x path={tmp_path}/di"
    assert offered(session, line) == {f"path={tmp_path}/disks/"}
    line = f"/backstores/file create name=x path={tmp_path}/disks/"
    assert offered(session, line) == {f"path={tmp_path}/disks/{name}" for name in ("a.img", "b.img", "deep/")}
    monkeypatch.chdir(tmp_path)
    assert offered(session, "saveconfig dis") >= {"disks/"}


def test_the_only_file_is_finished_by_a_blank_and_a_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    (tmp_path / "folder").mkdir()
    assert suggestions.files(f"{tmp_path}/a") == [f"{tmp_path}/a.img "]
    assert suggestions.files(f"{tmp_path}/f") == [f"{tmp_path}/folder/"]
    assert suggestions.files("/no/such/folder/x") == []


def test_sizes_come_from_nothing_and_from_a_number() -> None:
    assert "10GiB" in suggestions.sizes("")
    assert suggestions.sizes("1.5G") == ["1.5GiB "]
    assert suggestions.sizes("x") == []
