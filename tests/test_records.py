"""The bytes of the records of finished commands."""

import pytest

from vscsihba.records import UNKNOWN, Batches, Direction, Kind, Record, pack_batch, records

READ = Record(
    Kind.COMMAND,
    3,
    10.0,
    10.5,
    begun=10.25,
    storage=0.125,
    tag=1 << 40,
    status=2,
    direction=Direction.IN,
    length=4096,
    returned=512,
    cdb=bytes(range(16)),
    sense=b"sense",
    data=b"data",
)


def test_a_record_survives_its_bytes() -> None:
    assert Record.unpack(READ.pack()) == READ
    assert READ.seconds == 0.5


def test_times_may_be_unknown() -> None:
    plain = Record(Kind.GONE, 16383, 1.0, 1.0)
    assert Record.unpack(plain.pack()) == plain
    assert plain.begun == plain.storage == UNKNOWN


@pytest.mark.parametrize("left", [0, 10, len(READ.pack()) - 1])
def test_a_record_that_is_cut_off_is_refused(left: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        Record.unpack(READ.pack()[:left])
    with pytest.raises(ValueError, match="cut off"):
        list(records(READ.pack() + READ.pack()[: left or 1]))


def test_a_record_of_another_size_than_its_parts_is_refused() -> None:
    packed = bytearray(READ.pack())
    packed[0] += 1
    with pytest.raises(ValueError, match="cut off"):
        Record.unpack(bytes(packed) + b"\0")


def test_batches_are_put_together_again_from_any_pieces() -> None:
    stream = pack_batch(READ.pack() * 2, 0) + pack_batch(b"", 7) + pack_batch(READ.pack(), 9)
    for piece in (1, 7, 64, len(stream)):
        batches = Batches()
        found = []
        lost = []
        for at in range(0, len(stream), piece):
            for record in batches.add(stream[at : at + piece]):
                found.append(record)
                lost.append(batches.lost)
        assert found == [READ] * 3
        assert lost == [0, 0, 9]
