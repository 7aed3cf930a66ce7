"""Waiting for device nodes: the ring's ``/dev/uioN``, a LUN's ``/dev/sdX`` and ``/dev/sgN``.

It uses uevents (pyudev). If udev runs, a node exists once udev has finished with it, so that permissions and
links are set; without udev (in a container) the kernel's own events and devtmpfs are used.

A busy machine may be slow, so the time limit counts from the last progress: an event, a new state of the
device, a completed command.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyudev

from vscsihba.configfs import observer, paths
from vscsihba.configfs.names import wwn_of
from vscsihba.errors import HostError, UsageError

VARIABLE: Final = "VSCSIHBA_NODE_TIMEOUT"
"""Environment variable: seconds without progress after which waiting for a device node fails."""
_DEFAULT: Final = 60
_LONGEST: Final = 3600

_MOST: Final = 4
"""Multiple of that limit after which waiting ends in spite of progress: events may be of other devices."""
_LOOK: Final = 1.0
"""Seconds between reads of the device's counter of completed commands."""

Look = Callable[[pyudev.Context], Path | str]
"""Returns a node, or the reason why it cannot be opened yet."""

_local = threading.local()

_NO_DISKS = ("1", "2", "3", "6", "8", "13", "17")
"""PERIPHERAL DEVICE TYPEs without a block device in Linux: tapes, printers, processors, scanners,
changers, enclosures, object storage (SPC-5 "INQUIRY")."""


@dataclass(frozen=True, slots=True)
class LunDevice:
    """The device nodes of a LUN.

    Attributes:
        address: ``host:channel:target:lun``.
        disk: ``/dev/sdX``; ``/dev/sgN`` of a device that is no disk.
        generic: ``/dev/sgN``, None without the kernel's sg module.
        links: The symbolic links of the disk, ``/dev/disk/by-id/...`` first.
    """

    address: str
    disk: Path
    generic: Path | None
    links: tuple[Path, ...] = ()


def node_timeout(environment: Mapping[str, str] = os.environ) -> float:
    """Return the seconds without progress after which waiting for a device node fails.

    Raises:
        UsageError: The environment variable is not valid.
    """
    word = environment.get(VARIABLE) or str(_DEFAULT)
    if not (word.isascii() and word.isdecimal() and 1 <= int(word) <= _LONGEST):
        raise UsageError(
            f"{VARIABLE}={word} is not a number of seconds",
            cure=f"set it to 1 to {_LONGEST}, or not at all ({_DEFAULT})",
        )
    return float(word)


def wait_for_uio(name: str, index: int, *, timeout: float | None = None) -> Path:
    """Return the node of a backstore's ring as soon as it can be opened.

    Args:
        name: Name of the backstore.
        index: N of its ``core/user_N``.
        timeout: Seconds in all; None: `node_timeout` since the last progress.

    Raises:
        HostError: It has not appeared by then.
    """

    def look(context: pyudev.Context) -> Path | str:
        ring = observer.ring_of(name, index)
        return _node(context, paths.SYSFS / "class" / "uio" / ring) if ring else _NOT_MADE

    return _wait("uio", look, f"the ring of backstore {name} (/dev/uioN)", timeout=timeout)


def wait_for_lun(hba_id: int, lun: int, *, timeout: float | None = None) -> LunDevice:
    """Return the device nodes of a linked LUN as soon as they can be opened.

    Args:
        hba_id: The HBA.
        lun: Its LUN.
        timeout: Seconds in all, for each node; None: `node_timeout` since the last progress.

    Raises:
        HostError: They have not appeared by then, or there is no such HBA.
    """
    where = _address(hba_id, lun)
    present = (paths.SYSFS / "class" / "scsi_generic").exists()
    generic = wait_for_generic(hba_id, lun, timeout=timeout) if present else None
    device = observer.scsi_device(where)
    if generic is not None and paths.read(device / "type") in _NO_DISKS:
        return LunDevice(where, generic, generic)
    disk = _wait(
        "block",
        _child(device / "block"),
        f"the disk of LUN {lun} of HBA {hba_id}",
        timeout=timeout,
        answered=device / "iodone_cnt",
    )
    return LunDevice(where, disk, generic, links_of(disk))


def wait_for_generic(hba_id: int, lun: int, *, timeout: float | None = None) -> Path:
    """Return ``/dev/sgN`` of a linked LUN, disk or not, as soon as it can be opened.

    Args:
        hba_id: The HBA.
        lun: Its LUN.
        timeout: Seconds in all; None: `node_timeout` since the last progress.

    Raises:
        HostError: It has not appeared by then (the kernel may lack sg), or there is no such HBA.
    """
    device = observer.scsi_device(_address(hba_id, lun))
    return _wait(
        "scsi_generic",
        _child(device / "scsi_generic"),
        f"the sg node of LUN {lun} of HBA {hba_id}",
        timeout=timeout,
        answered=device / "iodone_cnt",
    )


def links_of(disk: Path) -> tuple[Path, ...]:
    """Return the symbolic links that udev has created for a disk, the stable ones (``by-id``) first."""
    try:
        device = pyudev.Devices.from_sys_path(_context(), str(paths.SYSFS / "class/block" / disk.name))
    except pyudev.DeviceNotFoundError:
        return ()
    links = sorted(map(Path, device.device_links))
    return tuple(sorted(links, key=lambda link: link.parent.name != "by-id"))


def _address(hba_id: int, lun: int) -> str:
    host = observer.host_of(paths.loopback() / wwn_of(hba_id))
    if host is None:
        raise HostError(f"there is no HBA {hba_id}")
    return observer.address(host, lun)


_NOT_MADE: Final = "Linux has not made the device"


def _child(directory: Path) -> Look:
    """Return a function that looks for the one device whose directory appears in `directory`."""

    def look(context: pyudev.Context) -> Path | str:
        names = paths.entries(directory)
        return _node(context, names[0]) if names else _NOT_MADE

    return look


def _node(context: pyudev.Context, device: Path) -> Path | str:
    """Return the node of the device at a path in /sys once it is ready, else the reason why it is not."""
    try:
        known = pyudev.Devices.from_sys_path(context, str(device.resolve()))
    except pyudev.DeviceNotFoundError:
        return _NOT_MADE
    node = Path(known.device_node or "")
    try:
        # It can be a plain file: ``dd of=/dev/sda`` creates one when the disk is gone.
        if node.stat().st_rdev != known.device_number:
            return f"{node} is another file"
    except FileNotFoundError:
        return f"{node} does not exist"
    return node if known.is_initialized or not _udev_runs() else f"udev has not finished with {node}"


def _wait(
    subsystem: str, look: Look, what: str, *, timeout: float | None, answered: Path | None = None
) -> Path:
    """Return the node that `look` finds, called now and after each event of `subsystem`.

    The monitor listens before the first call, so that no event is missed.

    Args:
        subsystem: The device's subsystem.
        look: Looks for the node.
        what: Its name in messages.
        timeout: Seconds in all; None: `node_timeout` since the last progress.
        answered: The file with the number of completed commands.

    Raises:
        HostError: It has not appeared by then.
    """
    context = _context()
    monitor = pyudev.Monitor.from_netlink(context, "udev" if _udev_runs() else "kernel")
    monitor.filter_by(subsystem)
    monitor.start()
    limit = _Limit(timeout)
    while isinstance(lacks := look(context), str):
        left = limit.left((lacks, answered and paths.read(answered)))
        if left <= 0:
            raise HostError(f"{what} did not appear within {limit.waited}: {lacks}", cure=_cure())
        if monitor.poll(min(left, _LOOK)) is not None:  # None also for an event that the filter drops
            limit.restart()
    return lacks


class _Limit:
    """The time limit of waiting for a node.

    Args:
        timeout: Seconds in all; None: `node_timeout` since the last progress, `_MOST` times that in all.
    """

    def __init__(self, timeout: float | None) -> None:
        self._quiet = node_timeout() if timeout is None else timeout
        self._counts = timeout is None
        self._began = self._last = time.monotonic()
        self._state: object = None

    def left(self, state: object) -> float:
        """Return the remaining seconds; a `state` that differs from the last one is progress."""
        if state != self._state:
            self._state = state
            self.restart()
        end = min(self._last + self._quiet, self._began + _MOST * self._quiet)
        return end - time.monotonic()

    def restart(self) -> None:
        """Restart the limit after progress, unless it counts in all."""
        if self._counts:
            self._last = time.monotonic()

    @property
    def waited(self) -> str:
        """The time waited, as a text."""
        if not self._counts:
            return f"{self._quiet:g} s"
        now = time.monotonic()
        return f"{now - self._began:.0f} s, of which the last {now - self._last:.0f} s had no progress"


def _context() -> pyudev.Context:
    """Return this thread's connection to libudev.

    It is kept because pyudev looks for the library in three child processes for each new one, and not shared
    because libudev is not thread-safe.
    """
    try:
        return _local.context
    except AttributeError:
        _local.context = pyudev.Context()
        return _local.context


def _udev_runs() -> bool:
    # The test of libudev itself (systemd, sd-device-monitor).
    return paths.UDEV_CONTROL.exists()


def _cure() -> str:
    if _udev_runs():
        return f"see dmesg and `udevadm monitor`; is the ring being served? On a slow machine set {VARIABLE}"
    return f"see dmesg; is /dev a devtmpfs, and is the ring being served? On a slow machine set {VARIABLE}"
