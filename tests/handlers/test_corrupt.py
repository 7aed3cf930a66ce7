from vscsihba.handlers.stack import Document, Stack, build
from vscsihba.testing.disk_model import DiskModel, as_tests, read, write

SIZE = 1 << 20


class HonestModel(DiskModel):
    """With no probability of lying, it is a disk."""

    forgets = True

    def document(self, directory: object) -> Document:
        return {"handler": "corrupt", "next": {"handler": "memory", "size": self.size, "label": "m"}}


TestHonest = as_tests(HonestModel)


def lying(**options: object) -> Stack:
    return build({"handler": "corrupt", **options, "next": {"handler": "memory", "size": SIZE}})


def test_flips_one_bit_of_a_read_and_not_of_the_medium() -> None:
    with lying(flip=1, offset=4096, length=4096) as disk:
        for _ in range(20):
            room = read(disk, 0, SIZE)
            ((at, byte),) = [(at, byte) for at, byte in enumerate(room) if byte]
            assert 4096 <= at < 8192
            assert byte.bit_count() == 1
        assert not any(read(disk, 8192, 4096))


def test_flips_in_a_scattered_read() -> None:
    with lying(flip=1) as disk:
        room = bytearray(8)
        disk.read(0, [memoryview(room)[at : at + 1] for at in range(8)])
        assert sum(byte.bit_count() for byte in room) == 1


def test_tears_a_write_between_sectors() -> None:
    lengths = set()
    with lying(torn=1) as disk:
        for _ in range(50):
            disk.write_zeroes(0, 4096, may_unmap=False)
            write(disk, 0, b"x" * 4096)
            stored = read(disk, 0, 4096).rstrip(b"\0")
            assert stored == b"x" * len(stored)
            lengths.add(len(stored))
    assert lengths == {sector * 512 for sector in range(8)}


def test_loses_a_write() -> None:
    with lying(lost=1, offset=4096) as disk:
        write(disk, 0, b"kept")
        write(disk, 4096, b"gone")
        assert read(disk, 0, 4) == b"kept"
        assert read(disk, 4096, 4) == bytes(4)


def test_misplaces_a_write_within_the_range() -> None:
    with lying(misplaced=1, offset=4096, length=8192, seed=3) as disk:
        write(disk, 4096, b"x" * 512)
        at = read(disk, 0, SIZE).index(b"x")
        assert 4096 < at < 12288
        assert at % 512 == 0


def test_misplaces_a_write_that_is_larger_than_the_range() -> None:
    with lying(misplaced=1, offset=SIZE - 512) as disk:
        write(disk, SIZE - 4096, b"x" * 4096)
        assert read(disk, SIZE - 4096, 4096) == b"x" * 4096
