"""``vscsihba replay``: with a disk in this process in place of a device."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.capture.test_replay import RigTarget, captured
from tests.engine.rig import Rig
from vscsihba.capture import sg_target
from vscsihba.cli import main
from vscsihba.cli.commands import replay


class FakeTarget(RigTarget):
    """A disk in this process as the device ``/dev/sg7``."""

    rig_of_test: Rig

    def __init__(self, path: Path) -> None:
        assert path == Path("/dev/sg7")
        super().__init__(self.rig_of_test)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        return


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with Rig({"handler": "memory", "size": "4MiB"}) as made:
        FakeTarget.rig_of_test = made
        monkeypatch.setattr(sg_target, "SgTarget", FakeTarget)
        yield made


def test_a_capture_is_sent_once_it_is_confirmed(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captured(tmp_path / "disk.pcapng")
    assert main.main(["replay", str(path), "/dev/sg7"]) == 2
    assert capsys.readouterr().err == f"vscsihba: {path} has commands that change /dev/sg7; use --overwrite\n"
    assert rig.read(8, 1).data == bytes(512)
    assert replay.run([str(path), "/dev/sg7", "--overwrite"]) == 0
    assert capsys.readouterr().out == "8 commands sent, no differences\n"
    assert rig.read(8, 1).data != bytes(512)


def test_differences_are_lines_and_the_exit_code(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captured(tmp_path / "disk.pcapng")
    rig.write(0, b"z" * 512)
    assert replay.run([str(path), "/dev/sg7", "--overwrite"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "4: READ(10) lba=0 blocks=24: other data from byte 0 on",
        "8 commands sent, 1 difference",
    ]
    assert replay.run([str(path), "/dev/sg7", "--overwrite", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["sent"], shown["skipped"], len(shown["differences"])) == (8, 0, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", "is not a pcapng file"),
        (None, "No such file or directory"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a" + bytes(8), "the file is cut off at byte 0"),
    ],
)
def test_a_bad_file_is_one_line(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    assert main.main(["replay", str(path), "/dev/sg7", "--overwrite"]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(path) in line


def test_a_capture_without_all_data_sends_nothing(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captured(tmp_path / "disk.pcapng", snaplen=64)
    assert main.main(["replay", str(path), "/dev/sg7", "--overwrite"]) == 2
    assert '; capture with "--snaplen all"' in capsys.readouterr().err
    assert rig.read(8, 1).data == bytes(512)
