"""``vscsihba bug-report``: one archive, with everything that is asked for, and without secrets."""

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.fake import FakeService
from vscsihba.cli import machine_state
from vscsihba.cli.main import main
from vscsihba.cli.report import parts
from vscsihba.cli.report.redaction import REMOVED, redacted, redacted_text
from vscsihba.errors import HostError

NAMES = [
    "versions.json",
    "doctor.json",
    "status.json",
    "running.json",
    "saved.json",
    "service.log",
    "kernel.log",
]


def report(folder: Path) -> dict[str, str]:
    """Write a report and return its files."""
    path = folder / "r.tar.gz"
    assert main(["bug-report", "--output", str(path)]) == 0
    with tarfile.open(path) as archive:
        files = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_it_has_every_part_and_says_so(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = report(tmp_path)
    assert list(files) == NAMES
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    assert "nothing was sent" in out
    assert json.loads(files["versions.json"])["vscsihba"]
    assert json.loads(files["running.json"])["version"] == 1
    assert "daemon" in json.loads(files["status.json"])
    assert json.loads(files["doctor.json"])[0]["title"]


def test_only_its_owner_can_read_it(no_service: None, tmp_path: Path) -> None:
    report(tmp_path)
    assert (tmp_path / "r.tar.gz").stat().st_mode & 0o777 == 0o600


def test_a_part_that_cannot_be_read_says_why(no_service: None, tmp_path: Path) -> None:
    assert report(tmp_path)["running.json"].startswith("not available: ")


def test_a_program_that_hangs_costs_only_its_part(
    no_service: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(words: list[str], **_: Any) -> Any:
        raise subprocess.TimeoutExpired(words, 30)

    monkeypatch.setattr(parts, "_output", hang)
    assert report(tmp_path)["service.log"] == "not available: journalctl did not end within 30 seconds\n"


def test_a_file_that_exists_is_not_replaced(
    no_service: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.tar.gz").write_text("mine")
    assert main(["bug-report", "--output", str(tmp_path / "r.tar.gz")]) == 1
    assert "exists; use --output" in capsys.readouterr().err
    assert (tmp_path / "r.tar.gz").read_text() == "mine"


def test_it_lists_its_content_as_json(
    no_service: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bug-report", "--json", "--output", str(tmp_path / "x.tar.gz")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(tmp_path / "x.tar.gz")
    assert [each["name"] for each in said["content"]] == NAMES


def test_a_saved_document_that_is_not_json_is_shown_without_secrets(
    no_service: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "config.json"
    saved.write_text('// mine\n{"password": "hunter2", "url": "nbd://bob:x@host/d"}\n')
    monkeypatch.setattr(parts, "SAVED", saved)
    assert report(tmp_path)["saved.json"] == (
        f'// mine\n{{"password": {REMOVED}, "url": "nbd://{REMOVED}@host/d"}}\n'
    )


def test_an_error_of_the_machine_is_the_content_of_its_part(
    no_service: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise HostError("no configfs")

    monkeypatch.setattr(machine_state, "kernel_status", fail)
    assert report(tmp_path)["status.json"] == "not available: no configfs\n"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"path": "/srv/a.img", "size": "1GiB"}, {"path": "/srv/a.img", "size": "1GiB"}),
        ({"password_file": "/etc/x.chap", "user": "bob"}, {"password_file": REMOVED, "user": REMOVED}),
        ({"key_file": "/etc/k", "keyring": "/etc/r"}, {"key_file": REMOVED, "keyring": REMOVED}),
        ({"api_token": ["a", "b"]}, {"api_token": REMOVED}),
        ({"passphrase_file": "", "user": None}, {"passphrase_file": "", "user": None}),
        ({"next": {"handler": "mine.py", "psk": 7}}, {"next": {"handler": "mine.py", "psk": REMOVED}}),
        ({"uri": "nbds://bob:pw@h/x"}, {"uri": f"nbds://{REMOVED}@h/x"}),
        ({"url": "https://h/x?sig=abc&e=1"}, {"url": f"https://h/x?{REMOVED}"}),
        ([{"legs": ["/a", "nbd://u@h/"]}], [{"legs": ["/a", f"nbd://{REMOVED}@h/"]}]),
        ({"monkey": "stays", "keys": 3}, {"monkey": "stays", "keys": 3}),
        ({"mutual_user": "bob", "users": ["lvm"]}, {"mutual_user": REMOVED, "users": ["lvm"]}),
        ({"target_core_user": "loaded", "bypass": 1}, {"target_core_user": "loaded", "bypass": 1}),
        ({"secret-disk": {"path": "/srv/a"}}, {"secret-disk": {"path": "/srv/a"}}),
    ],
)
def test_secrets_of_documents_are_taken_out(value: object, wanted: object) -> None:
    assert redacted(value) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hba0: nbd://bob:pw@host/d: refused", f"hba0: nbd://{REMOVED}@host/d: refused"),
        ("opened with password=hunter2, and on", f"opened with password={REMOVED}, and on"),
        ("token: 'a b' end", f"token: {REMOVED} end"),
        ("get https://h/p?sig=1 done", f"get https://h/p?{REMOVED} done"),
        ("lun 0: /srv/a.img: No such file", "lun 0: /srv/a.img: No such file"),
    ],
)
def test_secrets_of_logs_are_taken_out(text: str, wanted: str) -> None:
    assert redacted_text(text) == wanted
