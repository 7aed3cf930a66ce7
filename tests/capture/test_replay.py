"""Commands of a capture, sent again: a disk in this process takes the place of a device."""

import subprocess
from pathlib import Path

import pytest

from tests.capture.tracing import command, introduction, watched_rig, write_capture
from tests.engine.rig import Rig, rw10
from vscsihba.capture.replay import Reply, changes_data, check_complete, of_lun, replay
from vscsihba.capture.saved import saved_commands
from vscsihba.errors import HostError, UsageError
from vscsihba.records import Direction
from vscsihba.tcmu import abi

DATA = bytes(range(256)) * 16


class RigTarget:
    """Sends commands to a rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.cdbs: list[bytes] = []

    def send(self, cdb: bytes, data: bytes, length: int) -> Reply:
        """Send a command; see `vscsihba.capture.replay.Target`."""
        self.cdbs.append(cdb)
        answer = self.rig.run(cdb, data_out=data, data_in=length)
        return Reply(answer.status, answer.sense, answer.data[: length - answer.residual])


def captured(path: Path, snaplen: int = 1 << 20) -> Path:
    """Capture some commands of a disk in memory."""
    with watched_rig(snaplen) as (rig, watched):
        rig.write(8, DATA)
        rig.read(8, 8)
        rig.run(rw10(0x41, 100, 16), data_out=b"s" * 512)  # WRITE SAME(10)
        rig.read(0, 24)
        rig.read(1 << 20, 1)
        rig.run(b"\x12\x00\x00\x00\x60\x00", data_in=96)
        rig.run(b"\x35" + bytes(9))
        rig.run(b"\x7f" + bytes(6) + b"\x18\x00\x0b" + bytes(20) + b"\x00\x01", data_out=bytes(512))
        write_capture(path, watched.events())
    return path


def test_a_replay_makes_the_same_disk(tmp_path: Path) -> None:
    path = captured(tmp_path / "disk.pcapng")
    with Rig({"handler": "memory", "size": "4MiB"}) as rig:
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [])
        target = RigTarget(rig)
        outcome = replay(saved_commands(path), target)
        assert outcome.differences == []
        assert (outcome.sent, outcome.skipped) == (8, 0)
        assert len(target.cdbs) == 9  # the first one was answered with a unit attention
        assert rig.read(8, 8).data == DATA[: 8 * 512]
        assert rig.read(100, 8).data == b"s" * 4096


def test_differences_are_told(tmp_path: Path) -> None:
    path = captured(tmp_path / "disk.pcapng")
    with Rig({"handler": "pattern", "size": "1GiB"}) as rig:  # larger, and it cannot be written
        outcome = replay(saved_commands(path), RigTarget(rig))
    texts = {difference.number: difference.text for difference in outcome.differences}
    assert texts[1].startswith("status CHECK CONDITION (MEDIUM ERROR")
    assert texts[2] == "other data from byte 1 on"
    assert texts[5].startswith("status GOOD instead of CHECK CONDITION (ILLEGAL REQUEST")
    assert 6 not in texts  # INQUIRY names the unit
    assert outcome.differences[0].command == "WRITE(10) lba=8 blocks=8"


def test_data_that_was_not_kept_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    path = captured(tmp_path / "disk.pcapng", snaplen=64)
    message = (
        r"has 64 of the 4096 bytes of command 1, WRITE\(10\) lba=8 blocks=8; capture with \"--snaplen all\""
    )
    write, *_ = saved_commands(path)
    with pytest.raises(UsageError, match=message):
        check_complete(write)


def test_reads_of_a_cut_capture_are_compared_as_far_as_they_were_kept(tmp_path: Path) -> None:
    with watched_rig(64) as (rig, watched):
        rig.read(0, 8)
        write_capture(path := tmp_path / "reads.pcapng", watched.events())
    with Rig({"handler": "memory", "size": "4MiB"}) as rig:
        assert replay(saved_commands(path), RigTarget(rig)).differences == []


def test_only_commands_that_change_data_need_a_confirmation(tmp_path: Path) -> None:
    changing = [changes_data(found) for found in saved_commands(captured(tmp_path / "disk.pcapng"))]
    assert changing == [True, False, True, False, False, False, False, True]


def test_commands_that_the_initiator_sent_again_are_skipped(tmp_path: Path) -> None:
    events = [
        introduction(1),
        command("00" * 6, status=0x08),
        command("00" * 6, status=0x28, time=1001.0),
        command("00" * 6, status=0x40, time=1002.0),
        command("00" * 6, status=2, sense=bytes([0x70, 0, 6]) + bytes(9) + b"\x29\0" + bytes(4), time=1003.0),
        command("00" * 6, time=1004.0),
    ]
    write_capture(path := tmp_path / "busy.pcapng", events)
    with Rig({"handler": "memory", "size": "1MiB"}) as rig:
        outcome = replay(saved_commands(path), RigTarget(rig))
    assert (outcome.sent, outcome.skipped, outcome.differences) == (1, 4, [])


def test_pauses_are_kept_if_wanted(tmp_path: Path) -> None:
    events = [introduction(1), *(command("00" * 6, time=1000.0 + 5 * index) for index in range(3))]
    write_capture(path := tmp_path / "slow.pcapng", events)
    waited: list[float] = []
    with Rig({"handler": "memory", "size": "1MiB"}) as rig:
        replay(saved_commands(path), RigTarget(rig), timed=True, sleep=waited.append)
        assert [round(seconds) for seconds in waited] == [0, 5, 10]
        waited.clear()
        replay(saved_commands(path), RigTarget(rig), sleep=waited.append)
    assert waited == []


def test_a_capture_of_several_luns_needs_a_choice(tmp_path: Path) -> None:
    events = [
        command("00" * 6, lun=1),
        command("35" + "00" * 9, lun=2, time=1001.0),
    ]
    write_capture(path := tmp_path / "two.pcapng", events)
    with pytest.raises(UsageError, match=r"several LUNs: hba3/lun1, hba3/lun2; choose one by --lun"):
        list(of_lun(saved_commands(path), None))
    assert [found.cdb[0] for found in of_lun(saved_commands(path), ("hba3", 2))] == [0x35]


def test_a_device_that_does_not_answer_ends_the_replay(tmp_path: Path) -> None:
    class Dead:
        def send(self, cdb: bytes, data: bytes, length: int) -> Reply:
            raise TimeoutError(110, "Connection timed out")

    path = captured(tmp_path / "disk.pcapng")
    with pytest.raises(HostError, match=r"command 1, WRITE\(10\) lba=8 blocks=8, got no answer: Connection"):
        replay(saved_commands(path), Dead())


def test_mkfs_of_ext4_gives_the_same_image(tmp_path: Path) -> None:
    """The commands are those of a program that writes a file system through a served disk."""
    image = tmp_path / "fs.img"
    image.write_bytes(bytes(8 << 20))
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", str(image)], check=True, timeout=60)
    content = image.read_bytes()
    with watched_rig(1 << 20, "8MiB") as (rig, watched):
        for lba in range(0, len(content) // 512, 128):
            piece = content[lba * 512 : (lba + 128) * 512]
            if any(piece):
                rig.write(lba, piece)
        write_capture(path := tmp_path / "mkfs.pcapng", watched.events())
    with Rig({"handler": "memory", "size": "8MiB"}) as rig:
        assert replay(saved_commands(path), RigTarget(rig)).differences == []
        copy = b"".join(rig.read(lba, 128).data for lba in range(0, len(content) // 512, 128))
    assert copy == content


def test_a_direction_is_kept(tmp_path: Path) -> None:
    events = [command("2a" + "00" * 6 + "000100", direction=Direction.OUT, length=512, data=bytes(512))]
    write_capture(path := tmp_path / "write.pcapng", events)
    (found,) = saved_commands(path)
    assert (found.is_write, found.is_read, bytes(found.data)) == (True, False, bytes(512))
