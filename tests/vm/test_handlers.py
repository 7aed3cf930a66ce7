"""Stacks of handlers as disks: in one line, from a file of one's own, and what dm-crypt reads of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.handlers.pages import from_tutorial
from tests.vm.conftest import MakeImage, Serve
from tests.vm.shell import checksum, mounted, run

MiB = 1 << 20


@pytest.fixture
def somewhere(scratch: Path) -> Path:
    """Return a folder to mount on."""
    return scratch / "mnt"


def fill(where: Path) -> str:
    """Write a file into a mounted file system, and return its checksum."""
    (where / "file").write_bytes(os.urandom(5 * MiB))
    run("sync", "-f", where)
    return checksum(where / "file")


def make_and_fill(device: Path, where: Path) -> str:
    """Make a file system with a file in it, and return the file's checksum."""
    run("mkfs.ext4", "-q", device)
    with mounted(device, where):
        return fill(where)


def content(device: Path, where: Path) -> str:
    """Return the checksum of the file in a file system, which must be clean."""
    run("e2fsck", "-fn", device)
    with mounted(device, where):
        return checksum(where / "file")


@contextmanager
def opened_by_dm_crypt(container: Path, key: Path) -> Iterator[Path]:
    """Open a LUKS container with the kernel's dm-crypt."""
    name = f"vscsihba-test-{os.getpid()}"
    run("cryptsetup", "open", "--key-file", key, container, name)
    try:
        yield Path("/dev/mapper") / name
    finally:
        run("cryptsetup", "close", name)


def test_the_tutorials_handler_is_a_disk(serve: Serve, scratch: Path, somewhere: Path) -> None:
    path = from_tutorial(scratch, "ram")
    target = serve(["ram:"], options=("--handler", str(path)))
    lun = target.luns[0]
    assert (lun.size, lun.image) == ("64.0 MiB", "ram:")
    written = make_and_fill(lun.node, somewhere)
    assert content(lun.node, somewhere) == written
    assert target.stop() == 0


def test_a_filter_of_ones_own_is_gone_on_with_after_a_kill(
    serve: Serve, image: MakeImage, scratch: Path, somewhere: Path
) -> None:
    options = ("--handler", str(from_tutorial(scratch, "inverted")))
    words = [f"inverted|{image()}"]
    target = serve(words, options=options)
    written = make_and_fill(target.luns[0].node, somewhere)
    target.process.send_signal(signal.SIGKILL)
    target.process.wait(60)
    again = serve(words, options=options)
    assert content(again.luns[0].node, somewhere) == written
    assert again.stop() == 0


@pytest.mark.long
def test_a_stack_of_three_in_one_line(serve: Serve, image: MakeImage, scratch: Path, somewhere: Path) -> None:
    base = image("base.img")
    before = checksum(base)
    words = [f"cache:16MiB|cow:{scratch}/over.cow;create=true|{base}"]
    target = serve(words)
    assert target.luns[0].image == words[0]
    written = make_and_fill(target.luns[0].node, somewhere)
    assert target.stop() == 0
    assert checksum(base) == before, "the base is as it was"
    again = serve(words)
    assert content(again.luns[0].node, somewhere) == written
    assert again.stop() == 0


def test_disks_share_a_base(serve: Serve, image: MakeImage, scratch: Path, somewhere: Path) -> None:
    base = image("base.img")
    target = serve([f"cow:{scratch}/{name}.cow;create=true|{base}" for name in ("one", "two")])
    written = [make_and_fill(lun.node, somewhere) for lun in target.luns]
    assert [content(lun.node, somewhere) for lun in target.luns] == written
    assert written[0] != written[1]
    assert target.stop() == 0


@pytest.mark.long
def test_dm_crypt_opens_what_was_written_through_us(
    serve: Serve, image: MakeImage, scratch: Path, somewhere: Path
) -> None:
    container, key = image("disk.luks"), scratch / "key"
    key.write_bytes(os.urandom(64))
    target = serve([f"encrypt:key_file={key};create=true;kdf_memory=32MiB;kdf_time=1|{container}"])
    written = make_and_fill(target.luns[0].node, somewhere)
    assert target.stop() == 0
    with opened_by_dm_crypt(container, key) as device:
        assert content(device, somewhere) == written


def test_what_was_written_through_dm_crypt_is_read_through_us(
    serve: Serve, image: MakeImage, scratch: Path, somewhere: Path
) -> None:
    container, key = image("disk.luks"), scratch / "key"
    key.write_bytes(os.urandom(64))
    slow = ("--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1")
    run("cryptsetup", "luksFormat", "-q", "--type", "luks2", *slow, "--key-file", key, container)
    with opened_by_dm_crypt(container, key) as device:
        written = make_and_fill(device, somewhere)
    target = serve([f"encrypt:key_file={key}|{container}"])
    assert content(target.luns[0].node, somewhere) == written
    assert target.stop() == 0
