"""uio devices, with a file in place of the map and a socket or FIFO in place of the rest (rules 2, 3, 13)."""

import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tcmu.process import descriptors, is_mapped
from vscsihba.errors import DeviceGoneError, HostError, InUseError
from vscsihba.tcmu.uio import Uio, UioDevice

SIZE = 3 * 4096


def device(node: Path, size: int = SIZE) -> UioDevice:
    return UioDevice(node, 0, "disk", "vscsihba", "", size)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A regular file in place of ``/dev/uio0``, which can be opened and mapped."""
    node = tmp_path / "uio0"
    node.write_bytes(bytes(SIZE))
    return node


@pytest.fixture
def opened(node: Path) -> Iterator[Uio]:
    opened = Uio(device(node))
    yield opened
    opened.close()


@pytest.fixture
def wired(opened: Uio) -> Iterator[socket.socket]:
    """Replace the device's descriptor by one end of a socket pair; the other end is the kernel's."""
    ours, kernels = socket.socketpair()
    ours.setblocking(False)
    os.dup2(ours.fileno(), opened.fileno())
    ours.close()
    yield kernels
    kernels.close()


def test_map_is_the_device(opened: Uio, node: Path) -> None:
    opened.memory[4096:4100] = b"ring"
    assert node.read_bytes()[4096:4100] == b"ring"
    assert len(opened.memory) == SIZE


def test_descriptor_is_not_inherited(opened: Uio) -> None:
    assert not os.get_inheritable(opened.fileno())


def test_rule_13_a_forked_child_has_no_map(opened: Uio, node: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(1 if is_mapped(node) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_mapped(node)


def test_rule_13_files_are_read_straight_into_the_map(opened: Uio, node: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"from the file")
    with (tmp_path / "image").open("rb") as image:
        assert os.preadv(image.fileno(), [opened.memory[4096:4100], opened.memory[8192:8201]], 0) == 13
    assert node.read_bytes()[4096:4100] == b"from"
    assert node.read_bytes()[8192:8201] == b" the file"


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (errno.EBUSY, InUseError, "another process serves this device"),
        (errno.ENOENT, DeviceGoneError, "no such device"),
        (errno.ENODEV, DeviceGoneError, "no such device"),
        (errno.ENXIO, DeviceGoneError, "no such device"),
        (errno.EACCES, HostError, "Permission denied"),
    ],
)
def test_open_that_fails_says_why(
    node: Path, monkeypatch: pytest.MonkeyPatch, error: int, expected: type[Exception], words: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(expected, match=words) as caught:
        Uio(device(node))
    assert type(caught.value) is expected
    assert str(node) in str(caught.value)


def test_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeviceGoneError):
        Uio(device(tmp_path / "uio7"))


def test_map_that_fails_closes_the_device(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()

    def fail(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(HostError, match=f"mapping {SIZE} bytes failed: Invalid argument"):
        Uio(device(node))
    assert descriptors() == before


def test_rule_2_acknowledge_reads_four_bytes(opened: Uio, wired: socket.socket) -> None:
    wired.send(struct.pack("=I", 1) + struct.pack("=I", 2))
    opened.acknowledge()
    opened.acknowledge()
    opened.acknowledge()  # no notification: EAGAIN, no error


def test_rule_2_acknowledge_of_a_removed_device(opened: Uio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(DeviceGoneError, match="uio0: the kernel removed the device"):
        opened.acknowledge()


def test_rule_3_kick_writes_four_bytes_once(opened: Uio, wired: socket.socket) -> None:
    opened.kick()
    assert wired.recv(64) == bytes(4)


def test_rule_3_kick_of_a_removed_device(opened: Uio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(DeviceGoneError, match="uio0: the kernel removed the device"):
        opened.kick()


def test_close_lets_go_of_everything(opened: Uio, node: Path) -> None:
    fd = opened.fileno()
    opened.close()
    assert not is_mapped(node)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    opened.close()


def test_close_under_a_view_unmaps_when_the_view_ends(opened: Uio, node: Path) -> None:
    """A stuck thread's view keeps the pages; unmapping under it would be a crash."""
    view = opened.memory[4096:8192]
    opened.close()
    view[0] = 0x5A
    assert is_mapped(node)
    view.release()
    assert not is_mapped(node)
    assert node.read_bytes()[4096] == 0x5A
