"""A logical unit through a real kernel: its size, free space, saved state, and erasure."""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.sg_io import Told, send
from tests.vm.shell import run
from tests.vm.target import Lun, kernel_messages

MiB = 1 << 20
BLOCKS = 1 << 40
Image = Callable[..., Path]

UNIT_ATTENTION, MEDIUM_ERROR = 6, 3
SANITIZE_FAILED = bytes([0x31, 0x03])
READ_WRITE_ERROR_RECOVERY = bytes([0x1A, 0x08, 0x01, 0x00, 0xFF, 0])
CACHING = bytes([0x1A, 0x08, 0x08, 0x00, 0xFF, 0])
PROVISIONING = bytes([0x1A, 0x08, 0x1C, 0x02, 0xFF, 0])


class Unit:
    """A disk, asked past the block layer; unit attentions are passed over."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ask(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> Told:
        while (told := send(self._fd, cdb, data_out=data_out, data_in=data_in)).key == UNIT_ATTENTION:
            pass
        return told

    def page(self, mode_sense: bytes) -> bytearray:
        """Return a mode page as it is."""
        told = self.ask(mode_sense, data_in=255)
        assert told.good, told
        return bytearray(told.data[4:])

    def select(self, *pages: bytes | bytearray, save: bool = False) -> None:
        """Change mode pages."""
        data = bytes(4) + b"".join(pages)
        assert self.ask(bytes([0x15, 0x10 | save, 0, 0, len(data), 0]), data_out=data).good


@contextmanager
def opened(lun: Lun) -> Iterator[Unit]:
    fd = os.open(lun.sg, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield Unit(fd)
    finally:
        os.close(fd)


def read_16(lba: int, blocks: int = 1) -> bytes:
    return struct.pack(">BBQIxx", 0x88, 0, lba, blocks)


def test_a_disk_of_2_to_the_40_blocks(serve: Serve) -> None:
    (lun,) = serve(["memory:size=512TiB"]).luns
    assert int((lun.sysfs / "size").read_text()) == BLOCKS
    noise = os.urandom(4096)
    with lun.node.open("r+b", buffering=0) as node:
        os.pwrite(node.fileno(), noise, BLOCKS * 512 - 4096)
        os.fsync(node.fileno())
    run("blockdev", "--flushbufs", lun.node)
    with lun.node.open("rb", buffering=0) as node:
        assert os.pread(node.fileno(), 4096, BLOCKS * 512 - 4096) == noise
        assert os.pread(node.fileno(), 4096, BLOCKS * 256) == bytes(4096)
    with opened(lun) as unit:
        assert unit.ask(bytes([0x25]) + bytes(9), data_in=8).data[:4] == b"\xff" * 4
        assert unit.ask(read_16(BLOCKS - 1), data_in=512).data == noise[-512:]
        beyond = unit.ask(read_16(BLOCKS), data_in=512)
        assert (beyond.key, beyond.sense[12:14]) == (5, b"\x21\x00")
    assert f"Number of logical blocks={BLOCKS}" in run("sg_readcap", "--16", lun.sg)
    run("blkdiscard", "--offset", str(BLOCKS * 512 - MiB), lun.node)
    with lun.node.open("rb", buffering=0) as node:
        assert os.pread(node.fileno(), 4096, BLOCKS * 512 - 4096) == bytes(4096)


def test_the_kernel_is_told_when_room_gets_short(serve: Serve) -> None:
    (lun,) = serve(["memory:size=64MiB;limit=16MiB"]).luns
    with opened(lun) as unit:
        recovery, provisioning = unit.page(READ_WRITE_ERROR_RECOVERY), unit.page(PROVISIONING)
        recovery[7] |= 0x80  # LBPERE
        provisioning[16] |= 0x80  # this threshold is enabled
        provisioning[20:24] = (8).to_bytes(4, "big")  # MiB
        unit.select(recovery, provisioning)
        assert "Available" in run("sg_logs", "--page=0xc", lun.sg)
        with lun.node.open("r+b", buffering=0) as node:
            for at in range(12):
                os.pwrite(node.fileno(), os.urandom(MiB), at * MiB)
                os.fsync(node.fileno())
        available = unit.ask(bytes([0x4D, 0, 0x40 | 0x0C, 0, 0, 0, 0, 0, 255, 0]), data_in=255).data
    assert int.from_bytes(available[8:12], "big") < 8
    wait_until(lambda: "thin provisioning soft threshold" in kernel_messages(), "the kernel's warning")


def test_saved_mode_pages_stay_with_the_image(serve: Serve, image: Image) -> None:
    disk = image()
    target = serve([disk])
    (lun,) = target.luns
    assert (lun.sysfs / "queue/write_cache").read_text().strip() == "write back"
    with opened(lun) as unit:
        caching = unit.page(CACHING)
        caching[2] &= ~0x04  # WCE
        unit.select(caching, save=True)
    assert target.stop() == 0
    (lun,) = serve([disk]).luns
    assert (lun.sysfs / "queue/write_cache").read_text().strip() == "write through"


def test_a_sanitizing_that_is_cut_off_is_not_taken_for_done(serve: Serve, image: Image) -> None:
    disk = image(size=16 * MiB)
    target = serve([f"rate:bytes_per_second=1MiB|{disk}"])
    run("sg_sanitize", "--overwrite", "--zero", "--quick", "--early", target.luns[0].sg)
    assert target.stop() == 0
    (lun,) = serve([disk]).luns
    with opened(lun) as unit:
        told = unit.ask(bytes(6))
        assert (told.key, told.sense[12:14]) == (MEDIUM_ERROR, SANITIZE_FAILED)
        run("sg_sanitize", "--overwrite", "--zero", "--quick", "--wait", lun.sg)
        assert unit.ask(bytes(6)).good


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_cryptographic_erase_leaves_nothing_to_read(
    sector: int, serve: Serve, image: Image, scratch: Path
) -> None:
    key = scratch / "key"
    key.write_bytes(os.urandom(32))
    container = f"encrypt:key_file={key};create=true;kdf=pbkdf2;kdf_time=1;sector_size={sector}"
    (lun,) = serve([f"{container}|{image(size=20 * MiB)}"]).luns
    secret = b"secret! " * 512
    with lun.node.open("r+b", buffering=0) as node:
        os.pwrite(node.fileno(), secret, 0)
        os.fsync(node.fileno())
    run("sg_sanitize", "--crypto", "--quick", "--wait", lun.sg)
    run("blockdev", "--flushbufs", lun.node)
    with lun.node.open("rb", buffering=0) as node:
        assert b"secret!" not in os.pread(node.fileno(), 4096, 0)
