"""An open ``/dev/sgN``: locked against other LUNs; its identification and capacity.

Knows INQUIRY and READ CAPACITY as far as that needs them (SPC-5, SBC-4). Commands of an initiator
are not its business.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from vscsihba.block import Geometry
from vscsihba.errors import HostError, InUseError, UsageError
from vscsihba.handlers.sg import sg_io
from vscsihba.handlers.sg.cdb import CD, Direction

_SYS = Path("/sys/dev")
_WITH_BLOCKS = frozenset({0x00, 0x04, CD, 0x07, 0x0E, 0x14})
"""PERIPHERAL DEVICE TYPEs that have a capacity: disks, WORM, CD, optical, simple disks, zoned disks."""
_NO_BLOCKS = Geometry(1 << 20)
"""What the kernel's backstore is made with for a device without a capacity; nobody looks at it."""

_SG_MAJOR = 21
"""SCSI_GENERIC_MAJOR (include/uapi/linux/major.h)."""
_BUSY = 0x08
_UNIT_ATTENTION = 0x06
_ATTEMPTS = 10
"""Several events may wait to be told, each once."""
_PATIENCE = 20.0
"""Seconds for each question."""


class SgDevice:
    """An open device.

    Args:
        path: ``/dev/sgN``.

    Attributes:
        fd: Its descriptor.
        type: PERIPHERAL DEVICE TYPE.
        geometry: Its capacity; an arbitrary one if it has no blocks.
        identity: A text that names the device wherever it is plugged in, as far as it has a name.

    Raises:
        UsageError: There is no such device.
        InUseError: It is mounted, or a LUN already.
        HostError: It does not answer, or has no medium.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with ExitStack() as opened:
            self.fd = _open(path, os.O_RDWR)
            opened.callback(os.close, self.fd)
            _hold(self.fd, path)
            for disk in _disks_of(self.fd):
                opened.callback(os.close, _open(f"/dev/{disk}", os.O_RDONLY | os.O_EXCL))
            self.type = self._ask("INQUIRY", bytes((0x12, 0, 0, 0, 36, 0)), 36, least=1)[0] & 0x1F
            self.identity = self._name()
            self.geometry = self._shape() if self.type in _WITH_BLOCKS else _NO_BLOCKS
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the device."""
        self._opened.close()

    def _name(self) -> str:
        """Return its identification (VPD page 83h, else 80h), its path if it has neither."""
        for page in (0x83, 0x80):
            try:
                page_data = self._ask("INQUIRY", bytes((0x12, 1, page, 0, 252, 0)), 252, least=5)
            except HostError:
                continue
            if page_data[1] == page:
                return page_data[4 : 4 + int.from_bytes(page_data[2:4], "big")].hex()
        return os.path.realpath(self._path)

    def _shape(self) -> Geometry:
        """Return the answer to READ CAPACITY.

        Raises:
            HostError: It says nothing.
            UsageError: Linux can make no disk of this shape.
        """
        blocks, block_size, exponent = self._capacity()
        try:
            return Geometry(blocks * block_size, block_size, block_size << exponent)
        except UsageError as error:
            raise UsageError(f"{self._path}: {error.message}", cure=error.cure) from error

    def _capacity(self) -> tuple[int, int, int]:
        """Return blocks, bytes of each, and by which power of two physical ones are larger."""
        try:
            cdb = bytes((0x9E, 0x10, *bytes(11), 32, 0, 0))
            capacity = self._ask("READ CAPACITY(16)", cdb, 32, least=12)
            exponent = capacity[13] & 0x0F
            return int.from_bytes(capacity[:8], "big") + 1, int.from_bytes(capacity[8:12], "big"), exponent
        except HostError:  # it may be too old for that one
            capacity = self._ask("READ CAPACITY(10)", bytes((0x25, *bytes(9))), 8, least=8)
            return int.from_bytes(capacity[:4], "big") + 1, int.from_bytes(capacity[4:], "big"), 0

    def _ask(self, name: str, cdb: bytes, length: int, *, least: int) -> bytes:
        """Send a command of our own and return its data, with zeroes up to `length` bytes.

        Raises:
            HostError: The device does not answer it, or with less than `least` bytes.
        """
        room = bytearray(length)
        for _ in range(_ATTEMPTS):
            try:
                answer = sg_io.send(self.fd, cdb, [memoryview(room)], Direction.IN, _PATIENCE)
            except OSError as error:
                raise HostError(f"{self._path} does not answer {name}: {error.strerror}") from error
            if answer.status == 0 and answer.moved >= least:
                return bytes(room)
            if answer.status != _BUSY and answer.sense_key != _UNIT_ATTENTION:
                break
        raise HostError(
            f"{self._path} refuses {name} (status {answer.status:#04x}, sense key {answer.sense_key:#x})",
            cure="is it ready, and has it a medium?",
        )


def check(path: str) -> None:
    """Check whether `path` can be opened as an sg device.

    Raises:
        UsageError: It is none, or may not be used.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", cure="name a /dev/sgN") from error
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _SG_MAJOR:
        raise UsageError(f"{path} is not a /dev/sgN device", cure=_cure(status))
    if not os.access(path, os.R_OK | os.W_OK):
        raise UsageError(f"{path} may not be used", cure="grant reading and writing")


def _cure(status: os.stat_result) -> str:
    """Return the name that a disk has as an sg device, if it is one."""
    if stat.S_ISBLK(status.st_mode):
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        for node in _SYS.glob(f"block/{number}/device/scsi_generic/sg*"):
            return f"it is the same device as /dev/{node.name}"
    return "see /sys/class/scsi_generic for what there is"


def _disks_of(fd: int) -> Iterator[str]:
    """Yield the names of the block devices that Linux has made of the same device."""
    number = os.fstat(fd).st_rdev
    for node in _SYS.glob(f"char/{os.major(number)}:{os.minor(number)}/device/block/*"):
        yield node.name


def _open(path: str, flags: int) -> int:
    """Open a node, whether there is a medium or not.

    Raises:
        InUseError: It is mounted or used otherwise.
        HostError: It is gone, or may not be opened.
    """
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _in_use(path) from error
        raise HostError(f"{path}: {error.strerror}") from error


def _hold(fd: int, path: str) -> None:
    """Keep other LUNs away, for as long as the descriptor is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use(path) from error


def _in_use(path: str) -> InUseError:
    return InUseError(f"{path} is in use: it is mounted, or already a disk", cure="release it first")
