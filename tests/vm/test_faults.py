"""Faults from outside: hostile commands, lost bytes, a full file system."""

import errno
import mmap
import os
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.conftest import Serve
from tests.vm.shell import mounted, run

MiB = 1 << 20
Image = Callable[..., Path]


def raw(sg: Path, cdb: bytes, *, data_in: int = 0, data_out: bytes = b"") -> tuple[int, bytes]:
    """Send a CDB with sg_raw; return its exit code and what came back."""
    words = ["sg_raw", "--timeout=60"]
    if data_in:
        words += [f"--request={data_in}", "--binary"]
    if data_out:
        words += [f"--send={len(data_out)}"]
    done = subprocess.run(
        [*words, str(sg), *(f"{byte:02x}" for byte in cdb)],
        input=data_out,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def test_random_cdbs_get_an_answer_and_no_stale_byte(serve: Serve, image: Image) -> None:
    """Every byte that comes back was put there by a command: the medium holds zeroes, the pages a marker."""
    target = serve([image("a.img", 4 * MiB)])
    sg, node = target.luns[0].sg, target.luns[0].node
    marker = b"\xa5" * 65536
    # Let the ring's pages carry the marker: data-out of a command that stores nothing.
    verify = bytes([0x2F, 0x02, 0, 0, 0, 0, 0, 0, 128, 0])
    raw(sg, verify, data_out=marker)
    rng = random.Random(11)
    opcodes = [0x00, 0x03, 0x08, 0x12, 0x1A, 0x25, 0x28, 0x4D, 0x5A, 0x88, 0x9E, 0xA0, 0xA3, 0xA8, 0xC0, 0xFF]
    for _ in range(60):
        opcode = rng.choice(opcodes)
        length = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}.get(opcode >> 5, 10)
        cdb = bytes([opcode]) + rng.randbytes(length - 1)
        code, data = raw(sg, cdb, data_in=rng.choice([4, 36, 255, 512, 4096]))
        assert code not in (33, 34), f"no answer to {cdb.hex()}: a time-out"
        assert marker[:8] not in data, f"stale bytes in the answer to {cdb.hex()}"
    fd = os.open(node, os.O_RDONLY)
    try:
        assert os.pread(fd, 4096, 0) == bytes(4096)
    finally:
        os.close(fd)
    assert target.stop() == 0
    assert "internal error" not in target.errors()


def test_a_file_cut_short_gives_medium_error_and_the_rest_goes_on(serve: Serve, image: Image) -> None:
    disk = image("a.img", 8 * MiB)
    target = serve([disk])
    sg = target.luns[0].sg
    os.truncate(disk, 4 * MiB)
    gone = (6 * MiB // 512).to_bytes(4, "big")
    code, _ = raw(sg, bytes([0x28, 0]) + gone + bytes([0, 0, 8, 0]), data_in=4096)
    assert code == 3, "sg_raw's code for MEDIUM ERROR"
    code, data = raw(sg, bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]), data_in=4096)
    assert (code, data) == (0, bytes(4096))
    assert target.stop() == 0
    assert disk.stat().st_size == 4 * MiB


def test_a_full_file_system_is_said_in_sense_and_the_disk_goes_on(serve: Serve, scratch: Path) -> None:
    holder = scratch / "holder"
    holder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2m", "none", holder)
    try:
        disk = holder / "a.img"
        with disk.open("xb") as file:
            file.truncate(16 * MiB)
        target = serve([disk])
        fd = os.open(target.luns[0].node, os.O_WRONLY | os.O_DIRECT)
        try:
            # DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT is ENOSPC to Linux.
            with pytest.raises(OSError, match=re.escape(os.strerror(errno.ENOSPC))):
                _write_until_full(fd)
            run("blkdiscard", "-o", "0", "-l", str(4 * MiB), target.luns[0].node)
            _write_aligned(fd, 0, 4096)
        finally:
            os.close(fd)
        assert target.stop() == 0
    finally:
        run("umount", holder)


def _write_until_full(fd: int) -> None:
    for offset in range(0, 8 * MiB, MiB):
        _write_aligned(fd, offset, MiB)


def _write_aligned(fd: int, offset: int, length: int) -> None:
    """Write with O_DIRECT, which wants an aligned buffer: an anonymous map is one."""
    with mmap.mmap(-1, length) as buffer:
        buffer.write(b"w" * length)
        assert os.pwrite(fd, buffer, offset) == length


def test_a_file_system_survives_a_storm_of_refused_commands(
    serve: Serve, image: Image, scratch: Path
) -> None:
    target = serve([image("a.img", 64 * MiB)])
    node, sg = target.luns[0].node, target.luns[0].sg
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        (where / "file").write_bytes(b"x" * MiB)
        for opcode in range(0xC0, 0xD0):
            assert raw(sg, bytes([opcode]) + bytes(9))[0] in (5, 9), "ILLEGAL REQUEST"
        run("sync", "-f", where)
        assert (where / "file").read_bytes() == b"x" * MiB
    run("e2fsck", "-fn", node)
    assert target.stop() == 0
