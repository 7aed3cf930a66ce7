"""EXTENDED COPY(LID1) and RECEIVE COPY RESULTS."""

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scsi.disk import BLOCK, Answer, Disk, invalid_field
from vscsihba.block import Read
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.copy.extended_copy import MOST_DESCRIPTOR_BYTES, MOST_SEGMENTS, MOST_TARGETS
from vscsihba.scsi.copy.manager import CopyOperation

TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


def target(disk: Disk, block_size: int | None = None, naa: bytes | None = None) -> bytes:
    naa = disk.lu.identity.naa if naa is None else naa
    head = struct.pack(">BBHBBBB", 0xE4, 0, 0, 1, 3, 0, len(naa)) + naa
    return head.ljust(28, b"\0") + (block_size or disk.lu.block_size).to_bytes(4, "big")


def segment(source: int, to: int, blocks: int, source_lba: int, lba: int, flags: int = 0) -> bytes:
    return struct.pack(">BBHHHxxHQQ", 0x02, flags, 24, source, to, blocks, source_lba, lba)


def header(targets: bytes, segments: bytes, identifier: int = 1, usage: int = 0) -> bytes:
    return struct.pack(">BBH4xI4x", identifier, usage << 3, len(targets), len(segments))


def xcopy(disk: Disk, targets: bytes, segments: bytes, cut: int = 0, **head: int) -> Answer:
    out = header(targets, segments, **head) + targets + segments
    out = out[: len(out) - cut]
    return disk.run(struct.pack(">BB8xIxx", 0x83, 0, len(out)), out=out)


def status(disk: Disk, identifier: int = 1) -> tuple[int, ...]:
    """Return status, segments processed and bytes copied."""
    data = disk.run(struct.pack(">BBB7xIxx", 0x84, 0, identifier, 255)).data
    length, state, segments, units, count = struct.unpack(">IBHBI", data)
    assert (length, units) == (8, 0)
    return state, segments, count


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    disk.medium[:] = bytes(block for block in range(64) for _ in range(BLOCK))
    return disk


def blocks(disk: Disk) -> list[int]:
    size = disk.lu.block_size
    return [disk.medium[at * size] for at in range(disk.lu.blocks)]


def test_copy_within_a_unit(disk: Disk) -> None:
    assert xcopy(disk, target(disk), segment(0, 0, 4, 2, 50) + segment(0, 0, 1, 9, 60)).good
    assert blocks(disk)[50:54] == [2, 3, 4, 5]
    assert blocks(disk)[60] == 9
    assert status(disk) == (1, 2, 5 * BLOCK)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 24))
@settings(deadline=None, max_examples=50)
def test_copy_of_overlapping_ranges_loses_nothing(source: int, to: int, count: int) -> None:
    disk = Disk(blocks=64 * 512)  # 256 KiB each 512th: pieces of 1 MiB overlap
    for lba in range(64):
        disk.medium[lba * 512 * BLOCK] = lba
    expected = bytearray(disk.medium)
    size = 512 * BLOCK
    expected[to * size : (to + count) * size] = expected[source * size : (source + count) * size]
    assert xcopy(disk, target(disk), segment(0, 0, count * 512, source * 512, to * 512)).good
    assert disk.medium == expected


def test_copy_to_another_unit(disk: Disk) -> None:
    other = Disk(name="other")
    disk.join(3, other)
    assert xcopy(disk, target(disk) + target(other), segment(0, 1, 4, 2, 8)).good
    assert blocks(other)[8:12] == [2, 3, 4, 5]
    assert xcopy(disk, target(disk) + target(other), segment(1, 0, 2, 9, 0)).good
    assert blocks(disk)[:2] == [3, 4]


@pytest.mark.parametrize(("flags", "count"), [(0x00, 8), (0x02, 1)])
def test_copy_between_block_sizes(disk: Disk, flags: int, count: int) -> None:
    large = Disk(blocks=8, block_size=4096, name="large")
    disk.join(1, large)
    assert xcopy(disk, target(disk) + target(large), segment(0, 1, count, 16, 2, flags)).good
    assert large.medium[2 * 4096 : 3 * 4096] == disk.medium[16 * BLOCK : 24 * BLOCK]


def test_copy_that_ends_within_a_block_is_refused(disk: Disk) -> None:
    large = Disk(blocks=8, block_size=4096, name="large")
    disk.join(1, large)
    answer = xcopy(disk, target(disk) + target(large), segment(0, 1, 7, 0, 0))
    assert answer.condition == (SenseKey.COPY_ABORTED, Asc.UNEXPECTED_INEXACT_SEGMENT)


def test_copy_never_reaches_a_unit_that_is_not_visible(disk: Disk) -> None:
    hidden = Disk(name="hidden")
    answer = xcopy(disk, target(hidden) + target(disk), segment(0, 1, 4, 0, 0))
    assert answer.condition == (SenseKey.COPY_ABORTED, Asc.UNREACHABLE_COPY_TARGET)
    assert disk.operations == []


@pytest.mark.parametrize(
    ("descriptor", "asc"),
    [
        (segment(0, 1, 4, 0, 0), Asc.UNREACHABLE_COPY_TARGET),
        (segment(0, 0, 4, 0, 61), Asc.NO_ADDITIONAL_SENSE_INFORMATION),
        (segment(0, 0, 4, 61, 0), Asc.NO_ADDITIONAL_SENSE_INFORMATION),
    ],
)
def test_copy_segment_that_cannot_be_done(disk: Disk, descriptor: bytes, asc: Asc) -> None:
    answer = xcopy(disk, target(disk), segment(0, 0, 1, 0, 1) + descriptor)
    assert answer.condition == (SenseKey.COPY_ABORTED, asc)
    assert status(disk) == (2, 1, BLOCK)


def test_copy_wrong_block_length_is_refused(disk: Disk) -> None:
    answer = xcopy(disk, target(disk, block_size=4096), segment(0, 0, 1, 0, 1))
    assert answer.condition == (SenseKey.COPY_ABORTED, Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE)


def test_copy_respects_the_destinations_state(disk: Disk) -> None:
    other = Disk(name="other", read_only=True)
    disk.join(1, other)
    answer = xcopy(disk, target(disk) + target(other), segment(0, 1, 1, 0, 0))
    assert answer.condition == (SenseKey.COPY_ABORTED, Asc.WRITE_PROTECTED)
    other.lu.readiness.present = False
    answer = xcopy(disk, target(disk) + target(other), segment(1, 0, 1, 0, 0))
    assert answer.condition == (SenseKey.COPY_ABORTED, Asc.UNREACHABLE_COPY_TARGET)


def test_copy_whose_source_fails(disk: Disk) -> None:
    other = Disk(name="other")
    disk.join(1, other)
    other.faults[Read] = OSError(errno.EIO, "lost")
    answer = xcopy(disk, target(disk) + target(other), segment(1, 0, 1, 0, 0))
    assert answer.condition == (SenseKey.COPY_ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)


def test_copy_of_nothing(disk: Disk) -> None:
    assert disk.run(struct.pack(">BB8xIxx", 0x83, 0, 0), out=b"").good
    assert xcopy(disk, b"", b"").good


@pytest.mark.parametrize("cut", [1, 28, 29, 60, 61])
def test_copy_parameters_cut_short_are_refused(disk: Disk, cut: int) -> None:
    assert xcopy(disk, target(disk), segment(0, 0, 1, 0, 1), cut=cut).condition == TOO_SHORT


def test_copy_with_too_many_descriptors(disk: Disk) -> None:
    answer = xcopy(disk, target(disk) * (MOST_TARGETS + 1), segment(0, 0, 1, 0, 1))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.TOO_MANY_TARGET_DESCRIPTORS)
    answer = xcopy(disk, target(disk), segment(0, 0, 1, 0, 1) * (MOST_SEGMENTS + 1))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.TOO_MANY_SEGMENT_DESCRIPTORS)
    everything = target(disk) * (MOST_TARGETS + 1) + segment(0, 0, 1, 0, 1) * MOST_SEGMENTS
    assert len(everything) > MOST_DESCRIPTOR_BYTES
    assert xcopy(disk, target(disk) * (MOST_TARGETS + 1), everything[544:]).condition == TOO_SHORT


def test_copy_with_other_descriptors(disk: Disk) -> None:
    answer = xcopy(disk, b"\xe0" + target(disk)[1:], segment(0, 0, 1, 0, 1))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)
    answer = xcopy(disk, target(disk), b"\x03" + segment(0, 0, 1, 0, 1)[1:])
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)


IN_LIST = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)


def test_copy_wrong_descriptor_is_pointed_at(disk: Disk) -> None:
    good_target, good_segment = target(disk), segment(0, 0, 1, 0, 1)
    tape = good_target[:1] + b"\x01" + good_target[2:]
    short = good_segment[:2] + b"\x00\x17" + good_segment[4:]
    for targets, segments, byte, bit in ((tape, good_segment, 17, 4), (good_target, short, 50, None)):
        answer = xcopy(disk, targets, segments)
        assert answer.condition == IN_LIST
        assert answer.field == (byte, bit)


def test_copy_inline_data_is_refused(disk: Disk) -> None:
    answer = disk.run(struct.pack(">BB8xIxx", 0x83, 0, 16), out=bytes(12) + b"\x00\x00\x00\x04")
    assert answer.condition == IN_LIST
    assert answer.field == (12, None)


def test_copy_descriptors_that_end_within_one_are_refused(disk: Disk) -> None:
    assert xcopy(disk, target(disk)[:31], b"").condition == TOO_SHORT
    assert xcopy(disk, target(disk)[:31], segment(0, 0, 1, 0, 1)).condition == TOO_SHORT
    assert xcopy(disk, target(disk), segment(0, 0, 1, 0, 1)[:27]).condition == TOO_SHORT


def test_copy_ignores_lu_id_type(disk: Disk) -> None:
    assert xcopy(disk, b"\xe4\xe0" + target(disk)[2:], segment(0, 0, 1, 0, 1)).good


def test_copy_status_of_nothing_is_refused(disk: Disk) -> None:
    assert invalid_field(disk.run(struct.pack(">BBB7xIxx", 0x84, 0, 1, 255))) == (2, None)


def test_copy_status_is_dropped_when_an_initiator_begins_anew(disk: Disk) -> None:
    assert xcopy(disk, target(disk), segment(0, 0, 1, 0, 1)).good
    assert status(disk)[0] == 1
    disk.run("12 00 00 00ff 00")
    assert invalid_field(disk.run(struct.pack(">BBB7xIxx", 0x84, 0, 1, 255))) == (2, None)


def test_copy_without_identifier(disk: Disk) -> None:
    assert xcopy(disk, target(disk), segment(0, 0, 1, 0, 1), identifier=0, usage=3).good
    answer = xcopy(disk, target(disk), segment(0, 0, 1, 0, 1), identifier=1, usage=3)
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)


def test_copy_identifier_in_use(disk: Disk) -> None:
    disk.lu.copies.begin(1, CopyOperation(action=0))
    assert status(disk) == (0, 0, 0)
    answer = xcopy(disk, target(disk), segment(0, 0, 1, 0, 1))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.OPERATION_IN_PROGRESS)
    disk.run("12 00 00 00ff 00")
    assert status(disk) == (0, 0, 0), "what runs is not dropped"


def test_copy_operations_do_not_pile_up(disk: Disk) -> None:
    for identifier in range(200):
        assert xcopy(disk, target(disk), segment(0, 0, 1, 0, 1), identifier=identifier).good
    assert invalid_field(disk.run(struct.pack(">BBB7xIxx", 0x84, 0, 1, 255))) == (2, None)
    assert status(disk, 199)[0] == 1


def test_copy_operating_parameters(disk: Disk) -> None:
    data = disk.run(struct.pack(">BB8xIxx", 0x84, 3, 255)).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert struct.unpack_from(">HHII", data, 8) == (
        MOST_TARGETS,
        MOST_SEGMENTS,
        MOST_DESCRIPTOR_BYTES,
        0xFFFF000,
    )
    assert data[36:38] == bytes([64, 9])
    assert data[43:] == bytes([2, 0x02, 0xE4])


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_copy_any_parameters_get_an_answer(out: bytes) -> None:
    disk = Disk()
    disk.run(struct.pack(">BB8xIxx", 0x83, 0, len(out)), out=out)
