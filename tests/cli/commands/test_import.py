"""``vscsihba import``: reads LIO's file, prints the document, writes secrets where they are asked for."""

import json
from pathlib import Path

import pytest

from tests.config.saveconfig.test_conversion import SECRET, iscsi, loopback, lun, storage, with_secret
from vscsihba.cli.main import main
from vscsihba.config.load import load


def saved(folder: Path, *, secret: bool = False, dev: str = "/srv/d1.img") -> Path:
    target = iscsi(attributes={"authentication": 1}, node_acls=[with_secret()]) if secret else loopback(lun())
    path = folder / "saveconfig.json"
    path.write_text(json.dumps({"storage_objects": [storage(dev=dev)], "targets": [target]}))
    return path


def test_the_document_is_printed_and_can_be_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(saved(tmp_path))]) == 0
    out, err = capsys.readouterr()
    (tmp_path / "disks.json").write_text(out)
    assert load(tmp_path / "disks.json").hbas[0].luns[0].backstore == "d1"
    assert err == ""


def test_secrets_need_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(saved(tmp_path, secret=True))]) == 2
    assert "--secrets" in capsys.readouterr().err


def test_secrets_are_files_of_their_own_that_only_the_owner_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "chap"
    assert main(["import", str(saved(tmp_path, secret=True)), "--secrets", str(folder)]) == 0
    out, err = capsys.readouterr()
    (file,) = folder.iterdir()
    assert file.read_text() == f"{SECRET}\n"
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert str(file) in out
    assert SECRET not in out + err


def test_a_file_of_another_size_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "d1.img"
    image.write_bytes(bytes(512))
    assert main(["import", "--json", str(saved(tmp_path, dev=str(image)))]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["notes"] == [f"{image}: the file, and so the disk, has 512 bytes; LIO shows {1 << 20}"]
    assert said["document"]["backstores"]["d1"]["path"] == str(image)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("{")
    assert main(["import", str(tmp_path / "x")]) == 2
    assert main(["import", str(tmp_path / "none")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "is not JSON" in first
    assert "No such file" in second
