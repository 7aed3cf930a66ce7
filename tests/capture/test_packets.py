"""Captures, decoded by the real tshark where it is installed, and read again by ourselves."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.capture.tracing import INQUIRY, command, introduction, watched_rig, write_capture
from tests.engine.rig import Rig, rw10
from vscsihba.capture import iscsi
from vscsihba.capture.files import CaptureFiles
from vscsihba.capture.packets import SYNTHETIC, CaptureWriter
from vscsihba.capture.saved import saved_commands
from vscsihba.capture.seen import Seen
from vscsihba.errors import HostError, UsageError
from vscsihba.records import Direction, Kind
from vscsihba.tcmu import abi

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
DATA: Final = bytes(range(256)) * 16


FIELDS: Final = (
    "frame.number",
    "frame.comment",
    "frame.interface_name",
    "exported_pdu.ipv4_dst",
    "_ws.malformed",
    "iscsi.opcode",
    "iscsi.initiatortasktag",
    "iscsi.request_frame",
    "iscsi.time",
    "iscsi.scsiresponse.residualcount",
    "iscsi.taskmanfun.function",
    "iscsi.taskmanfun.referencedtasktag",
    "scsi.sns.key",
    "scsi.sns.ascascq",
    "scsi_sbc.opcode",
    "scsi_sbc.rdwr10.lba",
    "scsi_ssc.opcode",
    "scsi_mmc.opcode",
)
Decoded = dict[str, str]


def decode(path: Path) -> list[Decoded]:
    """Return some fields of each packet, as tshark decodes it."""
    words = ["tshark", "-r", str(path), "-T", "fields", *(f"-e{name}" for name in FIELDS)]
    output = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in output.splitlines()]


def having(packets: list[Decoded], name: str, value: str | None = None) -> list[Decoded]:
    """Return the packets that have a field, or a value of it."""
    return [packet for packet in packets if (packet[name] if value is None else packet[name] == value)]


def check_decoded(path: Path, commands: int) -> list[Decoded]:
    """Check that tshark finds no malformed packet, and a request with a time for each answer."""
    packets = decode(path)
    assert having(packets, "_ws.malformed") == []
    ours = [packet for packet in packets if packet["frame.comment"] != SYNTHETIC]
    requests = having(ours, "iscsi.opcode", "0x01")
    answers = having(ours, "iscsi.opcode", "0x21")
    assert len(requests) == len(answers) == commands
    by_number = {packet["frame.number"]: packet for packet in requests}
    for answer in answers:
        request = by_number.pop(answer["iscsi.request_frame"])
        assert request["iscsi.initiatortasktag"] == answer["iscsi.initiatortasktag"]
        assert float(answer["iscsi.time"]) >= 0
    return packets


def many_commands(rig: Rig) -> None:
    """Send commands of most families: with data in both directions, large, refused, and without data."""
    rig.run(b"\x12\x00\x00\x00\x60\x00", data_in=96)
    rig.run(b"\x12\x01\x83\x00\xff\x00", data_in=255)
    rig.run(b"\x9e\x10" + bytes(11) + b"\x20" + bytes(2), data_in=32)
    rig.write(0, DATA)
    rig.read(0, 8)
    rig.read(0, 2000)
    rig.write(0, b"x" * (512 * 1200))
    rig.read(1 << 20, 8)
    rig.run(b"\xc9" + bytes(9))
    rig.run(b"\x1a\x00\x3f\x00\xff\x00", data_in=255)
    rig.run(b"\x4d\x00\x6f\x00\x00\x00\x00\x02\x00\x00", data_in=512)
    rig.run(b"\x42\x00\x00\x00\x00\x00\x00\x00\x18\x00", data_out=bytes([0, 22, 0, 16]) + bytes(20))
    rig.run(b"\x35" + bytes(9))
    rig.run(b"\x7f" + bytes(6) + b"\x18\x00\x09" + bytes(22), data_in=512)
    rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [])
    rig.run(bytes(6))


@needs_tshark
@pytest.mark.parametrize("snaplen", [0, 64, 1 << 20])
def test_tshark_decodes_all_of_it(tmp_path: Path, snaplen: int) -> None:
    with watched_rig(snaplen) as (rig, watched):
        many_commands(rig)
        commands = write_capture(path := tmp_path / "all.pcapng", watched.events())
    assert commands == 15
    packets = check_decoded(path, commands)
    assert [each["iscsi.taskmanfun.function"] for each in having(packets, "iscsi.opcode", "0x02")] == ["0x05"]
    assert having(packets, "scsi_sbc.rdwr10.lba", "1048576")
    failed = having(packets, "scsi.sns.key")
    assert [int(each["scsi.sns.key"], 16) for each in failed] == [5, 5, 5, 6]
    assert [int(each["scsi.sns.ascascq"], 16) for each in failed[:2]] == [0x2100, 0x2000]
    assert sum(int(each["iscsi.scsiresponse.residualcount"] or "0", 0) > 0 for each in packets) == 5


@needs_tshark
def test_commands_of_a_tape_and_a_cd_decode_as_such(tmp_path: Path) -> None:
    tape, cd = bytes([1, *INQUIRY[1:]]), bytes([5, *INQUIRY[1:]])
    events = [
        introduction(1, tape),
        introduction(2, cd),
        command("08 00 00 02 00 00", lun=1, device_type=1, direction=Direction.IN, length=512, returned=512),
        command("10 00 00 00 01 00", lun=1, device_type=1, time=1001.0),
        command("43 02 00 00 00 00 00 03 24 00", lun=2, device_type=5, time=1002.0),
    ]
    write_capture(path := tmp_path / "others.pcapng", events)
    packets = check_decoded(path, 3)
    assert having(packets, "scsi_ssc.opcode", "0x08")
    assert having(packets, "scsi_ssc.opcode", "0x10")
    assert having(packets, "scsi_mmc.opcode", "0x43")


@needs_tshark
def test_each_hba_is_an_interface(tmp_path: Path) -> None:
    read = command("28 00 00 00 00 00 00 00 08 00")
    other = Seen(7, read.time, read.record)
    write_capture(path := tmp_path / "two.pcapng", [introduction(1), read, other], lost=9)
    packets = check_decoded(path, 2)
    ends = {(each["frame.interface_name"], each["exported_pdu.ipv4_dst"]) for each in packets}
    assert ends == {(f"hba{hba}", f"127.{hba}.0.{end}") for hba in (3, 7) for end in (1, 2)}


def test_packets_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    long = command("28" + " 00" * 9, arrived=10.0, ended=10.4, time=1000.0)
    short = command("35" + " 00" * 9, arrived=10.1, ended=10.2, time=1000.1)
    write_capture(path := tmp_path / "order.pcapng", [short, long])
    assert [found.cdb[0] for found in saved_commands(path)] == [0x28, 0x35]


def test_a_capture_gives_back_the_commands(tmp_path: Path) -> None:
    with watched_rig(1 << 20) as (rig, watched):
        many_commands(rig)
        events = watched.events()
        write_capture(path := tmp_path / "all.pcapng", events)
    seen = [each for each in events if each.is_command]
    found = list(saved_commands(path))
    assert len(found) == len(seen) == 15
    for saved, original in zip(found, seen, strict=True):
        record = original.record
        assert saved.cdb[: len(original.cdb)] == original.cdb
        assert (saved.status, saved.sense, saved.lun) == (record.status, record.sense, record.lun)
        assert bytes(saved.data) == record.data
        assert not saved.cut
        if record.direction is not Direction.NONE:
            assert (saved.length, saved.length - saved.residual) == (record.length, record.returned)
    assert [saved.number for saved in found] == list(range(1, 16))


def test_data_that_was_cut_is_known_to_be(tmp_path: Path) -> None:
    with watched_rig(64) as (rig, watched):
        rig.write(0, DATA)
        rig.write(0, bytes(1200 * 512))
        write_capture(path := tmp_path / "cut.pcapng", watched.events())
    assert [(found.cut, len(found.data)) for found in saved_commands(path)] == [(True, 64), (True, 64)]


def test_a_ring_of_files_keeps_the_newest_and_each_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "disk.pcapng"
    with CaptureFiles(path, most_files=3, most_bytes=20_000) as files:
        writer = CaptureWriter(files)
        writer.add(introduction(1))
        for index in range(1000):
            begin = 1000 + index / 100
            long = 0.3 if index % 10 == 0 else 0.001
            writer.add(command("28" + " 00" * 9, time=begin, ended=10 + long, tag=index))
            writer.write_until(begin)
        writer.close(0, 1011.0)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 3
    assert kept[-1].name > "disk_00003.pcapng"
    numbers = 0
    for each in kept:
        found = list(saved_commands(each))
        assert all(command.status == 0 for command in found)
        numbers += len(found)
        if each == kept[1] and shutil.which("tshark"):
            assert len(having(check_decoded(each, len(found)), "frame.comment", SYNTHETIC)) == 3
    assert numbers < 1000


def test_commands_are_not_split_between_two_files(tmp_path: Path) -> None:
    path = tmp_path / "disk.pcapng"
    with CaptureFiles(path, most_files=1000, most_bytes=4096) as files:
        writer = CaptureWriter(files)
        for index in range(300):
            writer.add(command("28" + " 00" * 9, time=1000 + index / 10, ended=11.5))
            writer.write_until(1000 + index / 10)
        writer.close(0, 1040.0)
    assert sum(len(list(saved_commands(each))) for each in tmp_path.iterdir()) == 300
    assert len(list(tmp_path.iterdir())) > 5


def test_a_full_disk_leaves_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="No space left on device"), CaptureFiles(Path("/dev/full")) as files:
        CaptureWriter(files)
    path = tmp_path / "disk.pcapng"
    import resource  # noqa: PLC0415 - only here
    import signal  # noqa: PLC0415 - only here

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with CaptureFiles(path) as files:
            writer = CaptureWriter(files)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            with pytest.raises(HostError, match=r"disk.pcapng: File too large"):  # noqa: PT012 - which one is open
                for index in range(1000):
                    writer.add(command("28" + " 00" * 9, time=1000 + index))
                    writer.write_until(1001.0 + index)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert len(list(saved_commands(path))) > 10


def pdu_lengths(pdus: Sequence[iscsi.Pdu]) -> list[int]:
    return [pdu.length for pdu in pdus]


def test_large_data_is_split_and_a_lun_above_255_is_addressed_flat() -> None:
    exchange = iscsi.Exchange(
        1,
        300,
        rw10(0x2A, 0, 600),
        is_read=False,
        is_write=True,
        length=300 << 10,
        returned=300 << 10,
        status=0,
        sense=b"",
        data=b"",
    )
    assert pdu_lengths(list(iscsi.command(exchange))) == [48 + (128 << 10), 48 + (128 << 10), 48 + (44 << 10)]
    assert iscsi.lun_of(iscsi.lun_field(300)) == 300
    assert iscsi.lun_of(iscsi.lun_field(7)) == 7


GARBAGE: Final = {
    "empty": (b"", "is not a pcapng file"),
    "text": (b"hello, world, this is no capture\n", "is not a pcapng file"),
    "header": (b"\x0a\x0d\x0d\x0a\x1c\x00\x00\x00", "no pcapng section begins"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_file_that_is_no_capture_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    content, message = GARBAGE[kind]
    path = tmp_path / "garbage"
    path.write_bytes(content)
    if not content:
        assert list(saved_commands(path)) == []
        return
    with pytest.raises(UsageError, match=message) as refused:
        list(saved_commands(path))
    assert "\n" not in str(refused.value)


def test_a_capture_of_a_network_is_refused(tmp_path: Path) -> None:
    from vscsihba.capture import pcapng  # noqa: PLC0415 - only here

    path = tmp_path / "network.pcapng"
    path.write_bytes(pcapng.section("x") + pcapng.interface(1, "eth0", "") + pcapng.packet(0, 0, b"abc", 3))
    with pytest.raises(UsageError, match="capture of something else"):
        list(saved_commands(path))


def test_a_damaged_capture_is_refused_or_read_and_never_crashes(tmp_path: Path) -> None:
    with watched_rig(1 << 20) as (rig, watched):
        rig.write(0, DATA[:512])
        rig.read(0, 1)
        write_capture(good := tmp_path / "good.pcapng", watched.events())
    content = good.read_bytes()
    path = tmp_path / "damaged.pcapng"
    refused = []
    for at in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        refused += refusal(path)
    assert len(refused) > 50
    for size in range(0, len(content), 11):
        path.write_bytes(content[:size])
        refused += refusal(path)
    assert not [line for line in refused if "\n" in line]
    assert any("cut off" in line for line in refused)


def refusal(path: Path) -> list[str]:
    """Read a damaged capture of two commands; return the message if it is refused."""
    try:
        found = list(saved_commands(path))
    except UsageError as error:
        return [str(error)]
    assert len(found) <= 3  # a damaged comment makes a command of the INQUIRY in front
    return []


def test_a_management_request_names_the_command_that_it_ends(tmp_path: Path) -> None:
    abort = command(
        "", kind=Kind.MANAGEMENT, sense=b"ABORT TASK", data=(5).to_bytes(8, "little"), time=1001.0
    )
    aborted = command("28" + " 00" * 9, tag=5, status=0x40)
    write_capture(path := tmp_path / "abort.pcapng", [introduction(1), aborted, abort])
    assert len(list(saved_commands(path))) == 1
    if shutil.which("tshark"):
        packets = check_decoded(path, 1)
        (answer,) = having(packets, "iscsi.opcode", "0x21")[1:]
        (request,) = having(packets, "iscsi.opcode", "0x02")
        assert request["iscsi.taskmanfun.referencedtasktag"] == answer["iscsi.initiatortasktag"]
