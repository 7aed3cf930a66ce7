"""The pass-through unit."""

import errno
from functools import partial

import pytest

from vscsihba.block import BlockOp, Buffer, Capabilities, Execute, Executed, Geometry
from vscsihba.scsi import Identity, LogicalUnit, PassThroughUnit, Response, Status
from vscsihba.stats import LunStats

READ = bytes([0x28, *bytes(6), 0, 8, 0])


@pytest.fixture
def unit() -> PassThroughUnit:
    return PassThroughUnit(Geometry(1 << 20), Capabilities(whole_cdbs=True), Identity.derive("x"))


def drive(unit: LogicalUnit, cdb: bytes, answer: Executed | OSError) -> tuple[BlockOp, Response]:
    """Run a command whose device gives `answer`; return the block operation and the response."""
    steps = unit.execute(cdb, Buffer([memoryview(bytearray(4096))]))
    operation = next(steps)
    go_on = partial(steps.throw, answer) if isinstance(answer, OSError) else partial(steps.send, answer)
    with pytest.raises(StopIteration) as stop:
        go_on()
    response = stop.value.value
    assert isinstance(response, Response)
    return operation, response


@pytest.mark.parametrize("cdb", [READ, bytes(6), b"\xff" * 16, b"\x53" + bytes(9)])
def test_every_command_is_passed_on(unit: PassThroughUnit, cdb: bytes) -> None:
    operation, response = drive(unit, cdb, Executed(0, b"", 5))
    assert isinstance(operation, Execute)
    assert operation.cdb == cdb
    assert response == Response(Status.GOOD, b"", 5)


def test_the_lun_in_an_inquiry_is_ours_and_not_the_devices(unit: PassThroughUnit) -> None:
    operation, _ = drive(unit, bytes([0x12, 0xE1, 0x83, 1, 0, 0]), Executed(0, b"", 5))
    assert isinstance(operation, Execute)
    assert operation.cdb == bytes([0x12, 0x01, 0x83, 1, 0, 0])


def test_sense_data_is_the_devices(unit: PassThroughUnit) -> None:
    _, response = drive(unit, READ, Executed(2, b"\x72sense", 0))
    assert response == Response(Status.CHECK_CONDITION, b"\x72sense", 0)


@pytest.mark.parametrize(
    ("answer", "condition"),
    [
        (OSError(errno.ETIMEDOUT, ""), (0x02, 0x04)),
        (OSError(errno.EREMOTEIO, ""), (0x04, 0x44)),
        (OSError(errno.EOPNOTSUPP, ""), (0x05, 0x20)),
        (Executed(0x7E), (0x04, 0x44)),
    ],
)
def test_no_answer_is_a_condition(
    unit: PassThroughUnit, answer: Executed | OSError, condition: tuple[int, int]
) -> None:
    _, response = drive(unit, READ, answer)
    assert response.status is Status.CHECK_CONDITION
    assert (response.sense[2] & 0xF, response.sense[12]) == condition
    assert response.data_in == 0


def test_the_fast_path_is_never_open(unit: PassThroughUnit) -> None:
    assert not unit.fast_path_clear
    unit.reset()
    drive(unit, bytes(6), Executed(0))
    assert not unit.fast_path_clear


def test_it_is_counted() -> None:
    stats = LunStats()
    unit = PassThroughUnit(
        Geometry(1 << 20), Capabilities(whole_cdbs=True), Identity.derive("x"), stats=stats
    )
    drive(unit, READ, Executed(0, b"", 4096))
    drive(unit, READ, Executed(2))
    drive(unit, bytes(6), Executed(0))
    assert (stats.reads, stats.errors, stats.others) == (1, 1, 1)


def test_commands_that_may_be_sent_twice(unit: PassThroughUnit) -> None:
    assert unit.idempotent(READ)
    assert unit.idempotent(bytes(6))
    for cdb in (b"\x89" + bytes(15), b"\xc1" + bytes(9), b"\x93" + bytes(15), b"\x4d\0\x6e" + bytes(7), b""):
        assert not unit.idempotent(cdb)
    assert unit.idempotent(b"\x4d\0\x6d" + bytes(7))
    ours = LogicalUnit(Geometry(1 << 20), Capabilities(), Identity.derive("x"))
    assert ours.idempotent(b"\x0a" + bytes(5))
    assert not ours.idempotent(b"\x89" + bytes(15))


@pytest.mark.parametrize("device_type", [0x01, 0x03, 0x04, 0x05, 0x07, 0x08])
def test_commands_that_may_be_sent_twice_to_other_devices(device_type: int) -> None:
    """A tape moves with READ(16), a burner writes once, LOG SENSE clears a changer's TapeAlert."""
    able = Capabilities(whole_cdbs=True, device_type=device_type)
    unit = PassThroughUnit(Geometry(1 << 20), able, Identity.derive("x"))
    for code in (0x08, 0x0A, 0x28, 0x2A, 0x35, 0x4D, 0x88, 0x8A, 0x91, 0x9E, 0xA8, 0xAA):
        assert not unit.idempotent(bytes([code]) + bytes(15))
    for code in (0x00, 0x12, 0x1A, 0x5A, 0xA0):
        assert unit.idempotent(bytes([code]) + bytes(15))
