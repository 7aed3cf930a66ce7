"""FORMAT UNIT and SANITIZE."""

import errno
import struct
from collections.abc import Generator

import pytest

from tests.scsi.disk import ALL, BLOCK, Answer, Disk, everything, invalid_field
from vscsihba.block import (
    BlockOp,
    BlockResult,
    Buffer,
    Capabilities,
    CryptoErase,
    Flush,
    Keep,
    Write,
    WriteZeroes,
)
from vscsihba.scsi import TABLE, Asc, Response, SenseKey

READY, SENSE, READ = "00" * 6, "03 00 00 00 ff 00", "28 00 00000000 00 0001 00"
FORMAT = "04 00 00 00 00 00"
BLOCK_ERASE, BLOCK_ERASE_IMMED = "48 02 00000000 00 0000 00", "48 82 00000000 00 0000 00"
CRYPTO_ERASE = "48 03 00000000 00 0000 00"
EXIT = "48 1f 00000000 00 0000 00"
SANITIZING = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS)
FORMATTING = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS)
IN_LIST = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


@pytest.fixture
def disk() -> Disk:
    disk = everything()
    disk.medium[:] = b"\x11" * len(disk.medium)
    return disk


def start(disk: Disk, cdb: str, out: bytes = b"") -> Generator[BlockOp, BlockResult, None]:
    """Send a command with IMMED and return the work that is left."""
    response: Response = disk.drive(disk.lu.execute(bytes.fromhex(cdb), Buffer([memoryview(bytearray(out))])))
    assert response.status == 0
    assert response.background is not None
    return response.background


def overwrite(
    disk: Disk, flags: int, pattern: bytes, length: int | None = None, cdb_flags: int = 0
) -> Answer:
    out = struct.pack(">BxH", flags, len(pattern) if length is None else length) + pattern
    return disk.run(struct.pack(">BB5xHB", 0x48, 0x01 | cdb_flags, len(out), 0), out=out)


def test_format_deallocates_everything(disk: Disk) -> None:
    assert disk.run(FORMAT, out=b"").good
    assert not any(disk.medium)
    assert disk.holes == set(range(64))
    assert isinstance(disk.operations[-1], Flush)
    assert disk.run(READY).good


def test_format_of_a_thick_medium_keeps_it_so() -> None:
    disk = Disk(capabilities=Capabilities())
    assert disk.run(FORMAT, out=b"").good
    assert [op.may_unmap for op in disk.operations if isinstance(op, WriteZeroes)] == [False]


@pytest.mark.parametrize(
    ("cdb", "header"), [("04 10 00 00 00 00", "00 88 0000"), ("04 30 00 00 00 00", "00 88 00 00 00000000")]
)
def test_format_with_a_pattern(disk: Disk, cdb: str, header: str) -> None:
    assert disk.run(cdb, out=bytes.fromhex(header + "00 01 0003 aabbcc")).good
    assert disk.medium[:5] == bytes.fromhex("aabbccaabb")
    assert disk.medium[BLOCK : BLOCK + 3] == bytes.fromhex("aabbcc")
    assert disk.holes == set()


def test_format_with_the_default_pattern(disk: Disk) -> None:
    assert disk.run("04 10 00 00 00 00", out=bytes.fromhex("00 88 0000 00 00 0000")).good
    assert not any(disk.medium)


@pytest.mark.parametrize(
    ("cdb", "out", "pointer"),
    [
        ("04 10 00 00 00 00", "01 00 0000", (0, None)),
        ("04 10 00 00 00 00", "00 40 0000", (1, None)),
        ("04 10 00 00 00 00", "00 01 0000", (1, None)),
        ("04 10 00 00 00 00", "00 00 0008", (3, None)),
        ("04 30 00 00 00 00", "00 00 00 01 00000000", (3, None)),
        ("04 30 00 00 00 00", "00 00 00 00 00000004", (7, None)),
        ("04 10 00 00 00 00", "00 88 0000 20 01 0001 00", (4, None)),
        ("04 10 00 00 00 00", "00 88 0000 00 02 0001 00", (5, None)),
        ("04 10 00 00 00 00", "00 88 0000 00 01 0000", (6, None)),
        ("04 10 00 00 00 00", "00 88 0000 00 01 0201", (6, None)),
        ("04 10 00 00 00 00", "00 88 0000 00 00 0001 00", (6, None)),
    ],
)
def test_format_wrong_parameter_is_pointed_at(
    disk: Disk, cdb: str, out: str, pointer: tuple[int, None]
) -> None:
    answer = disk.run(cdb, out=bytes.fromhex(out))
    assert answer.condition == IN_LIST
    assert answer.field == pointer
    assert disk.operations == []


@pytest.mark.parametrize("out", ["00 00", "00 88 0000", "00 88 0000 00 01 0002 aa"])
def test_format_with_a_short_parameter_list(disk: Disk, out: str) -> None:
    assert disk.run("04 10 00 00 00 00", out=bytes.fromhex(out)).condition == TOO_SHORT


def test_format_fast(disk: Disk) -> None:
    assert disk.run("04 00 00 00 01 00", out=b"").good
    assert invalid_field(disk.run("04 00 00 00 02 00", out=b"")) == (4, 1)


def test_format_immed_makes_progress_that_can_be_polled() -> None:
    disk = Disk(blocks=8192)
    work = start(disk, "04 10 00 00 00 00", bytes.fromhex("00 8a 0000 00 01 0001 aa"))
    assert disk.run(READY).condition == FORMATTING
    assert not disk.lu.fast_path_clear
    next(work)
    work.send(None)
    answer = disk.run(SENSE)
    assert answer.data[2] == SenseKey.NOT_READY
    assert answer.data[15:18] == bytes([0x80, 0x40, 0x00]), "one piece of four"
    disk.drive(work)
    assert disk.run(READY).good
    assert disk.lu.fast_path_clear


def test_sanitize_block_erase(disk: Disk) -> None:
    assert disk.run(BLOCK_ERASE, out=b"").good
    assert not any(disk.medium)
    assert disk.holes == set(range(64))
    assert isinstance(disk.operations[-1], Flush)


def test_sanitize_cryptographic_erase(disk: Disk) -> None:
    assert disk.run(CRYPTO_ERASE, out=b"").good
    assert disk.operations == [CryptoErase(), Flush()]


def test_sanitize_is_there_as_far_as_the_medium_can() -> None:
    disk = Disk(capabilities=Capabilities())
    assert invalid_field(disk.run(BLOCK_ERASE, out=b"")) == (1, 4)
    assert invalid_field(disk.run(CRYPTO_ERASE, out=b"")) == (1, 4)
    assert overwrite(disk, 0x01, b"\xaa").good


@pytest.mark.parametrize("length", [1, 4, BLOCK // 2, BLOCK])
def test_sanitize_overwrite(disk: Disk, length: int) -> None:
    pattern = bytes(range(1, 252)) * 3
    assert overwrite(disk, 0x01, pattern[:length]).good
    assert disk.medium == (pattern[:length] * BLOCK)[:BLOCK] * 64
    assert sum(isinstance(op, Write) for op in disk.operations) == 1


@pytest.mark.parametrize(("flags", "passes", "last"), [(0x03, 3, 0xAA), (0x83, 3, 0xAA), (0x82, 2, 0xAA)])
def test_sanitize_overwrite_does_every_pass(disk: Disk, flags: int, passes: int, last: int) -> None:
    assert overwrite(disk, flags, b"\xaa").good
    assert sum(isinstance(op, Write) for op in disk.operations) == passes
    assert disk.medium == bytes([last]) * 64 * BLOCK
    written = [op.views[0][0] for op in disk.operations if isinstance(op, Write)]
    alternating = [0xAA, 0x55] if flags & 0x80 else [0xAA]
    assert written == (alternating * passes)[:passes][::-1]


def test_sanitize_overwrite_wrong_parameters(disk: Disk) -> None:
    assert invalid_field(overwrite(disk, 0x01, b"")) == (7, None)
    assert invalid_field(overwrite(disk, 0x01, bytes(BLOCK + 1))) == (7, None)
    for flags, length, pointer in (
        (0x21, 1, (0, 6)),
        (0x00, 1, (0, 4)),
        (0x01, 2, (2, None)),
        (0x01, 0, (2, None)),
    ):
        answer = overwrite(disk, flags, b"\xaa", length)
        assert answer.condition == IN_LIST
        assert answer.field == pointer
    assert disk.operations == []


def test_sanitize_overwrite_with_too_little_data_is_refused(disk: Disk) -> None:
    assert invalid_field(disk.run("48 01 00000000 00 0008 00", out=bytes(7))) == (7, None)


ANSWERED = [
    SENSE,
    "12 00 00 00ff 00",
    "1a 08 3f 00 ff 00",
    "25" + "00" * 9,
    "9e 10 0000000000000000 00000020 00 00",
    "a3 0c 00 00 0000 000000ff 00 00",
    "a3 0d 00 000000 000000ff 00 00",
]
REFUSED = [READY, READ, EXIT, "4d 00 42 00 00 0000 00ff 00", "1b 00 00 00 01 00", "15 10 00 00 00 00"]


def test_sanitize_leaves_few_commands_alone(disk: Disk) -> None:
    work = start(disk, BLOCK_ERASE_IMMED)
    for cdb in REFUSED:
        assert disk.run(cdb, room=0).condition == SANITIZING, cdb
    for cdb in ANSWERED:
        assert disk.run(cdb).good, cdb
    disk.drive(work)
    assert disk.run(READ).good


def test_sanitize_goes_on_after_a_reset(disk: Disk) -> None:
    work = start(disk, BLOCK_ERASE_IMMED)
    disk.lu.reset()
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    assert disk.run(READY).condition == SANITIZING
    disk.drive(work)


def fail(disk: Disk, cdb: str) -> Answer:
    disk.faults[WriteZeroes] = OSError(errno.EIO, "lost")
    answer = disk.run(cdb, out=b"")
    disk.faults.clear()
    return answer


def test_sanitize_failure_stays(disk: Disk) -> None:
    failed = (SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED)
    assert fail(disk, BLOCK_ERASE).condition == failed
    assert disk.run(READ).condition == failed
    assert invalid_field(disk.run(EXIT)) == (1, 4)
    assert invalid_field(disk.run("48 22 00000000 00 0000 00", out=b"")) == (1, 5)
    assert disk.run(BLOCK_ERASE, out=b"").good, "another try is allowed"
    assert disk.run(READ).good


def test_sanitize_failure_can_be_given_up_if_that_was_agreed(disk: Disk) -> None:
    assert not fail(disk, "48 22 00000000 00 0000 00").good
    assert disk.run(EXIT).good
    assert disk.run(READ).good


def test_sanitize_immed_failure_stays(disk: Disk) -> None:
    assert fail(disk, BLOCK_ERASE_IMMED).good
    assert disk.run(READ).condition == (SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED)


def test_sanitize_exit_without_a_failure(disk: Disk) -> None:
    assert disk.run(EXIT).good


def test_format_failure_stays(disk: Disk) -> None:
    failed = (SenseKey.MEDIUM_ERROR, Asc.FORMAT_COMMAND_FAILED)
    assert fail(disk, FORMAT).condition == failed
    assert disk.run(READ).condition == failed
    assert disk.run(FORMAT, out=b"").good


@pytest.mark.parametrize("key", [(0x04, None), (0x48, 0x01), (0x48, 0x02), (0x48, 0x03)])
def test_erasure_starts_alone(key: tuple[int, int | None]) -> None:
    assert TABLE[key].starts_alone


@pytest.mark.parametrize(("capabilities", "byte"), [(Capabilities(), 0x00), (ALL, 0x50)])
def test_vpd_tells_that_erased_blocks_can_be_read(capabilities: Capabilities, byte: int) -> None:
    assert Disk(capabilities=capabilities).run("12 01 b1 00ff 00").data[7] == byte


def test_erasure_that_is_cut_off_has_failed_in_the_next_life() -> None:
    for cdb, failure in (
        (BLOCK_ERASE_IMMED, Asc.SANITIZE_COMMAND_FAILED),
        (FORMAT, Asc.FORMAT_COMMAND_FAILED),
    ):
        kept: list[bytes] = []
        operation = next(everything().lu.execute(bytes.fromhex(cdb), Buffer()))
        assert isinstance(operation, Keep), "the note comes before the first change"
        again = everything(saved_state=operation.state, on_save=kept.append)
        assert again.run(READ).condition == (SenseKey.MEDIUM_ERROR, failure)
        assert again.run(cdb, out=b"").good
        assert again.run(READ).good
        assert everything(saved_state=kept[-1]).run(READ).good


def test_erasure_that_failed_may_be_given_up_in_the_next_life_if_that_was_agreed() -> None:
    kept: list[bytes] = []
    assert not fail(everything(on_save=kept.append), "48 22 00000000 00 0000 00").good
    again = everything(saved_state=kept[-1], on_save=kept.append)
    assert again.run(EXIT).good
    assert everything(saved_state=kept[-1]).run(READ).good


def test_erasure_whose_end_cannot_be_noted_has_failed() -> None:
    left = [1]

    def full(_state: bytes) -> None:
        if not left:
            raise OSError(errno.ENOSPC, "no room")
        left.pop()

    disk = everything(on_save=full)
    assert disk.run(FORMAT, out=b"").condition == (SenseKey.MEDIUM_ERROR, Asc.FORMAT_COMMAND_FAILED)
    assert disk.run(READ).condition == (SenseKey.MEDIUM_ERROR, Asc.FORMAT_COMMAND_FAILED)


def test_failure_mode_is_not_left_without_a_note_of_it() -> None:
    kept: list[bytes] = []

    def keep(state: bytes) -> None:
        if len(kept) == 1:
            raise OSError(errno.ENOSPC, "no room")
        kept.append(state)

    disk = everything(on_save=keep)
    assert not fail(disk, "48 22 00000000 00 0000 00").good
    assert not disk.run(EXIT).good
    assert disk.run(READ).condition == (SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED)


def test_erasure_does_not_begin_without_a_note_of_it() -> None:
    def full(_state: bytes) -> None:
        raise OSError(errno.ENOSPC, "no room")

    disk = everything(on_save=full)
    answer = disk.run(BLOCK_ERASE, out=b"")
    assert answer.condition == (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    assert disk.operations == []
    assert disk.run(READ).good
