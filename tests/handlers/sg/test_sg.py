"""sg over a kernel's ioctl that the tests play: what it passes on, and what it brings back."""

import errno
import mmap
import os
from collections.abc import Callable

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from tests.handlers.fake_sg import NODE, FakeSg
from tests.scsi.disk import Disk
from vscsihba.block import Geometry
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError
from vscsihba.handlers.sg.cdb import Direction, direction_of
from vscsihba.handlers.sg.device import SgDevice
from vscsihba.handlers.sg.timeouts import timeout_of
from vscsihba.handlers.stack import build
from vscsihba.scsi import TABLE, Data

DOCUMENT = {"handler": "sg", "path": NODE}
DATA = bytes(range(256)) * 4


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeSg:
    """A disk of 64 blocks behind /dev/null."""
    return FakeSg(monkeypatch)


def test_size_and_blocks_are_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSg(monkeypatch, Disk(blocks=100, block_size=1024, physical_block_size=4096))
    with build(DOCUMENT) as disk:
        assert disk.geometry == Geometry(100 << 10, 1024, 4096)
        assert disk.capabilities.whole_cdbs


def test_identity_is_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("one", "two", "one"):
        FakeSg(monkeypatch, Disk(name=name))
        with build(DOCUMENT) as disk:
            found.append(disk.identity)
    assert found[0] == found[2] != found[1]


def test_an_initiator_speaks_with_the_device(device: FakeSg) -> None:
    with Rig(DOCUMENT) as rig:
        assert rig.write(3, DATA).status == GOOD
        assert device.disk.medium[3 * 512 : 5 * 512] == DATA
        answer = rig.read(3, 2)
        assert (answer.status, answer.data) == (GOOD, DATA)
        assert rig.run(bytes([0x35, *bytes(9)])).status == GOOD
        inquiry = rig.run(bytes([0x12, 0, 0, 0, 96, 0]), data_in=96)
        assert inquiry.data.startswith(device.disk.run("12 00 00 00 60 00").data)
    sent = [(cdb[0], direction) for cdb, direction, *_ in device.commands]
    assert sent[-4:] == [(0x2A, -2), (0x28, -3), (0x35, -1), (0x12, -3)]


def test_sense_data_comes_back_as_it_is(device: FakeSg) -> None:
    with Rig(DOCUMENT) as rig:
        answer = rig.read(64, 1)
    assert answer.status == CHECK_CONDITION
    assert triple(answer) == (5, 0x21, 0)
    assert answer.sense.startswith(device.disk.run(rw10(0x28, 64, 1)).sense)


def test_a_short_answer_is_short(device: FakeSg) -> None:
    with build(DOCUMENT) as disk:
        room = bytearray(b"\xee" * 4096)
        done = disk.execute(bytes([0x12, 0, 0, 0, 5, 0]), [memoryview(room)])
    assert done.data_in == 5
    assert room[5:] == b"\xee" * 4091


@pytest.mark.parametrize("status", [0x08, 0x18, 0x28, 0x40])
def test_other_statuses_are_passed_on(device: FakeSg, status: int) -> None:
    with Rig(DOCUMENT) as rig:
        device.statuses = [(status, b"")]
        assert rig.read(0, 1).status == status


@pytest.mark.parametrize(
    ("host_status", "expected"),
    [
        (0x01, (2, 4, 1)),
        (0x02, (0xB, 0x55, 3)),
        (0x03, (2, 4, 1)),
        (0x07, (4, 0x44, 0)),
        (0x30, (4, 0x44, 0)),
    ],
)
def test_a_command_without_a_status_is_a_condition(
    device: FakeSg, host_status: int, expected: tuple[int, int, int]
) -> None:
    with Rig(DOCUMENT) as rig:
        device.host_status = host_status
        answer = rig.read(0, 1)
        assert (answer.status, triple(answer)) == (CHECK_CONDITION, expected)
        device.host_status = 0
        assert rig.read(0, 1).status == GOOD


def test_a_status_that_nobody_knows_is_a_condition(device: FakeSg) -> None:
    with Rig(DOCUMENT) as rig:
        device.statuses = [(0x7E, b"")]
        assert triple(rig.read(0, 1)) == (4, 0x44, 0)


def test_data_both_ways_is_refused(device: FakeSg) -> None:
    with Rig(DOCUMENT) as rig:
        before = len(device.commands)
        answer = rig.run(bytes([0x53, *bytes(9)]), data_out=bytes(512))
        assert triple(answer) == (5, 0x20, 0)
        assert len(device.commands) == before


def test_the_cdb_ends_where_its_code_says(device: FakeSg) -> None:
    with build(DOCUMENT) as disk:
        for cdb, length in [(b"\0" * 16, 6), (b"\x35" + bytes(15), 10), (b"\x91" + bytes(31), 16)]:
            disk.execute(cdb, [])
            assert len(device.commands[-1][0]) == length


def test_timeouts(device: FakeSg) -> None:
    with build({**DOCUMENT, "timeout": 2.5}) as disk:
        disk.execute(bytes(6), [])
        assert device.commands[-1][3] == 2500
        disk.execute(bytes([0x1D, 4, *bytes(4)]), [])
        assert device.commands[-1][3] == 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("device_type", "code", "seconds"),
    [
        (0x00, 0x28, 25),
        (0x00, 0x91, 25),
        (0x00, 0x04, 86400),
        (0x01, 0x08, 2940),
        (0x01, 0x10, 2940),
        (0x01, 0x88, 2940),
        (0x01, 0x01, 86400),
        (0x01, 0x91, 86400),
        (0x01, 0x93, 86400),
        (0x05, 0x28, 25),
        (0x05, 0x2A, 1800),
        (0x05, 0x35, 1800),
        (0x05, 0x5B, 86400),
        (0x05, 0xA1, 86400),
        (0x08, 0xB8, 600),
        (0x08, 0xA5, 86400),
    ],
)
def test_timeouts_by_the_type_of_the_device(device_type: int, code: int, seconds: int) -> None:
    assert timeout_of(bytes([code, *bytes(15)]), device_type, 25) == seconds
    assert timeout_of(bytes([code, *bytes(15)]), device_type, 5000) == max(seconds, 5000)


def test_the_type_is_the_devices_own(device: FakeSg, monkeypatch: pytest.MonkeyPatch) -> None:
    with build(DOCUMENT) as disk:
        assert disk.capabilities.device_type == 0
    monkeypatch.setattr(SgDevice, "_ask", lambda *_, **__: b"\x01" + bytes(251))
    with build(DOCUMENT) as disk:
        assert disk.capabilities.device_type == 1
        disk.execute(bytes([0x08, *bytes(5)]), [])
    assert device.commands[-1][3] == 2940 * 1000


def test_more_pieces_than_the_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeSg(monkeypatch, Disk(blocks=2048))
    data = os.urandom(1 << 20)
    with build(DOCUMENT) as disk:
        out = memoryview(data)
        disk.execute(rw10(0x2A, 0, 2048), [out[at : at + 512] for at in range(0, len(out), 512)])
        assert device.disk.medium == data
        room = memoryview(bytearray(len(data)))
        done = disk.execute(rw10(0x28, 0, 2048), [room[at : at + 512] for at in range(0, len(room), 512)])
        assert done.data_in == len(data)
        assert bytes(room) == data
    assert {pieces for _, direction, pieces, _ in device.commands[-2:]} == {1}


def test_memory_of_the_ring_is_let_go_of(device: FakeSg) -> None:
    with build(DOCUMENT) as disk, mmap.mmap(-1, 4096) as ring, memoryview(ring) as view:
        disk.execute(rw10(0x28, 0, 8), [view[:1024], view[1024:]])
        # Closing a map that somebody still refers to would raise BufferError.


def test_the_adapters_limit_is_told(device: FakeSg) -> None:
    ask = bytes([0x12, 1, 0xB0, 0, 64, 0])
    with Rig(DOCUMENT) as rig:
        said = rig.run(ask, data_in=64).data[8:12]
    device.limit = 65536
    with Rig(DOCUMENT) as rig:
        page = rig.run(ask, data_in=64).data
        assert int.from_bytes(page[8:12], "big") == 128 < int.from_bytes(said, "big")
        assert rig.run(bytes([0x12, 1, 0xB0, 0, 8, 0]), data_in=64).data[:4] == page[:4]


def test_events_that_wait_are_taken_when_it_opens(device: FakeSg) -> None:
    attention = bytes([0x70, 0, 6, 0, 0, 0, 0, 10, *bytes(10)])
    device.statuses = [(2, attention), (2, attention), (8, b"")]
    with build(DOCUMENT) as disk:
        assert disk.geometry.blocks == 64


def test_a_device_that_knows_only_the_short_question(device: FakeSg) -> None:
    device.unknown = {0x9E}
    with build(DOCUMENT) as disk:
        assert disk.geometry == Geometry(64 * 512)


def not_ready(device: FakeSg) -> None:
    device.statuses = [(2, bytes([0x70, 0, 2, 0, 0, 0, 0, 10, *bytes(10)]))] * 9


def silent(device: FakeSg) -> None:
    device.host_status = 1


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (not_ready, "refuses INQUIRY .*sense key 0x2.*has it a medium"),
        (silent, f"{NODE} does not answer INQUIRY: .*endpoint is not connected"),
    ],
)
def test_a_device_that_does_not_answer_is_no_disk(
    device: FakeSg, break_it: Callable[[FakeSg], None], message: str
) -> None:
    break_it(device)
    with pytest.raises(HostError, match=message):
        build(DOCUMENT).open()


def test_one_device_is_one_disk(device: FakeSg) -> None:
    with build(DOCUMENT), pytest.raises(InUseError, match="/dev/null is in use"):
        build(DOCUMENT).open()
    with build(DOCUMENT):
        pass


@pytest.mark.parametrize("path", ["/dev/null", "/nowhere/sg0", "/"])
def test_what_is_no_sg_device(path: str) -> None:
    with pytest.raises(UsageError, match=path):
        build({"handler": "sg", "path": path}).check()


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"handler": "readonly", "next": DOCUMENT}, r"\$\.next"),
        (
            {"handler": "log", "next": {"handler": "cache", "size": "1MiB", "next": DOCUMENT}},
            r"\$\.next\.next",
        ),
        ({"handler": "split", "legs": [DOCUMENT]}, r"\$\.legs\[0\]"),
    ],
)
def test_nothing_sits_on_it(document: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError, match=f"{place}: nothing can sit on sg"):
        build(document)


def test_it_has_no_bytes(device: FakeSg) -> None:
    with build(DOCUMENT) as disk, pytest.raises(OSError, match="whole commands") as caught:
        disk.read(0, [memoryview(bytearray(512))])
    assert caught.value.errno == errno.EOPNOTSUPP


def test_directions_are_those_of_our_own_table() -> None:
    ours = {Data.IN: Direction.IN, Data.OUT: Direction.OUT}
    for (opcode, action), row in TABLE.items():
        cdb = bytearray(32)
        cdb[0] = opcode
        if action is not None:
            cdb[1] = action & 0x1F
            cdb[8:10] = action.to_bytes(2, "big")
        if row.data in ours:
            assert direction_of(bytes(cdb), 0) is ours[row.data], row.name


def test_a_cd_drive_means_other_things() -> None:
    for opcode, disk, cd in [
        (0x42, Direction.OUT, Direction.IN),
        (0xA3, Direction.IN, Direction.OUT),
        (0xA4, Direction.OUT, Direction.IN),
        (0x53, Direction.BOTH, Direction.IN),
        (0x28, Direction.IN, Direction.IN),
    ]:
        assert direction_of(bytes([opcode, *bytes(9)]), 0) is disk
        assert direction_of(bytes([opcode, *bytes(9)]), 5) is cd
