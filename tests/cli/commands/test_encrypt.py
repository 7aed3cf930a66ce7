"""vscsihba encrypt."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vscsihba.cli.main import main

CHEAP = ["--kdf", "pbkdf2", "--kdf-time", "1"]
SIZE = 24 << 20


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(b"\0binary\n")
    (tmp_path / "words").write_text("open sesame\n")
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(SIZE)
    return tmp_path


def encrypt(*words: object) -> int:
    return main(["encrypt", *map(str, words)])


def test_a_container_and_its_keys(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk, key, words = files / "disk", files / "key", files / "words"
    assert encrypt("create", disk, "--key-file", key, *CHEAP) == 0
    assert capsys.readouterr().out == f"created a LUKS2 container on {disk}\n"
    assert encrypt("add-key", disk, "--key-file", key, "--new-passphrase-file", words, *CHEAP) == 0
    assert capsys.readouterr().out == "added a key in slot 1\n"
    assert encrypt("keys", disk) == 0
    assert capsys.readouterr().out == "keys in slots: 0, 1\n"
    assert encrypt("remove-key", disk, 0) == 0
    assert encrypt("keys", disk, "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2]) == {"keys": [1]}


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")
def test_cryptsetup_takes_both_secrets(files: Path) -> None:
    disk, key, words = files / "disk", files / "key", files / "words"
    assert encrypt("create", disk, "--passphrase-file", words, "--luks", 1, *CHEAP) == 0
    assert encrypt("add-key", disk, "--passphrase-file", words, "--new-key-file", key, *CHEAP[2:]) == 0
    test = ["cryptsetup", "open", "--test-passphrase", str(disk), "--key-file"]
    subprocess.run([*test, str(key)], check=True)
    subprocess.run([*test, "-"], input=b"open sesame", check=True)


def test_a_header_of_its_own(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk, key, header = files / "disk", files / "key", files / "header"
    assert encrypt("create", disk, "--header", header, "--key-file", key, *CHEAP) == 0
    assert disk.read_bytes() == bytes(SIZE)
    assert encrypt("keys", header) == 0
    assert "keys in slots: 0" in capsys.readouterr().out
    assert encrypt("create", disk, "--header", header, "--key-file", key, *CHEAP) == 2
    assert "is already a LUKS container" in capsys.readouterr().err


def shell(command: str, files: Path, **streams: object) -> str:
    """Run a line in bash, where "$V" is the program."""
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "V": f"{sys.executable} -m vscsihba"},
        cwd=files,
        capture_output=True,
        text=True,
        check=False,
        **streams,  # type: ignore[call-overload]
    )
    assert "Traceback" not in done.stderr
    return str(done.stdout + done.stderr)


def test_secrets_that_can_be_read_once(files: Path) -> None:
    cheap = " ".join(CHEAP)
    assert "created a LUKS2 container" in shell(
        f"printf 'one\n' | $V encrypt create disk --passphrase-file - {cheap}", files
    )
    assert "in slot 1" in shell(
        f"$V encrypt add-key disk --key-file <(printf one) --new-key-file <(printf two) {cheap}", files
    )
    assert "in slot 2" in shell(
        f"printf two | $V encrypt add-key disk --key-file - --new-key-file key {cheap}", files
    )
    assert "two secrets cannot both come from standard input" in shell(
        f"printf two | $V encrypt add-key disk --key-file - --new-passphrase-file - {cheap}", files
    )
    assert "opens no key" in shell(
        f"printf one | $V encrypt add-key disk --key-file <(printf three) --new-key-file - {cheap}", files
    )


def test_refusals_are_one_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk, key = files / "disk", files / "key"

    def refused(*words: object) -> str:
        code = encrypt(*words)
        printed = capsys.readouterr()
        assert code in (1, 2)
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        return printed.err

    assert "one of the arguments --key-file --passphrase-file --credential is required" in refused(
        "create", disk
    )
    assert "is not a LUKS container" in refused("keys", disk)
    assert "none: No such file" in refused("create", disk, "--key-file", files / "none", *CHEAP)
    assert disk.read_bytes() == bytes(SIZE)
    assert encrypt("create", disk, "--key-file", key, *CHEAP) == 0
    capsys.readouterr()
    assert "is already a LUKS container" in refused("create", disk, "--key-file", key, *CHEAP)
    assert "slot x is not a number" in refused("remove-key", disk, "x").replace("'", "")
    assert "the secret opens no key" in refused(
        "add-key", disk, "--passphrase-file", files / "words", "--new-key-file", key, *CHEAP
    )
    assert encrypt("remove-key", disk, 0) != 0
