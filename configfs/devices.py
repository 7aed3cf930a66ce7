"""Waiting for device nodes: the ring's ``/dev/uioN``, a LUN's ``/dev/sdX`` and ``/dev/sgN``.

By uevents (pyudev), never by looking again and again. Where udev runs, a node counts as there
when udev is done with it, so that permissions and links are right; where it does not run (a
container), the kernel's own events and devtmpfs have to do.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyudev

from vscsihba.configfs import observer, paths
from vscsihba.configfs.names import wwn_of
from vscsihba.errors import HostError

_local = threading.local()

_NO_DISKS = ("1", "2", "3", "6", "8", "13", "17")
"""PERIPHERAL DEVICE TYPEs that Linux makes no block device of: tapes, printers, processors, scanners,
changers, enclosures, object storage (SPC-5 "INQUIRY")."""


@dataclass(frozen=True, slots=True)
class LunDevice:
    """The device nodes of a LUN.

    Attributes:
        address: ``host:channel:target:lun``.
        disk: ``/dev/sdX``; ``/dev/sgN`` of what is no disk.
        generic: ``/dev/sgN``, None without the kernel's sg module.
        links: Further names that udev gave the disk, ``/dev/disk/by-id/...`` first.
    """

    address: str
    disk: Path
    generic: Path | None
    links: tuple[Path, ...] = ()


def wait_for_uio(name: str, index: int, *, timeout: float = 10.0) -> Path:
    """Return the node of a backstore's ring as soon as it can be opened.

    Args:
        name: Of the backstore.
        index: N of its ``core/user_N``.
        timeout: Seconds.

    Raises:
        HostError: It has not come by then.
    """

    def found(context: pyudev.Context) -> Path | None:
        ring = observer.ring_of(name, index)
        return _node(context, paths.SYSFS / "class" / "uio" / ring) if ring else None

    return _wait("uio", found, timeout, f"the ring of backstore {name} (/dev/uioN)")


def wait_for_lun(hba_id: int, lun: int, *, timeout: float = 30.0) -> LunDevice:
    """Return the device nodes of a linked LUN as soon as they can be opened.

    Args:
        hba_id: Of the HBA.
        lun: Its number.
        timeout: Seconds.

    Raises:
        HostError: They have not come by then, or there is no such HBA.
    """
    where = _address(hba_id, lun)
    present = (paths.SYSFS / "class" / "scsi_generic").exists()
    generic = wait_for_generic(hba_id, lun, timeout=timeout) if present else None
    device = observer.scsi_device(where)
    if generic is not None and paths.read(device / "type") in _NO_DISKS:
        return LunDevice(where, generic, generic)
    block = device / "block"
    disk = _wait("block", _child(block), timeout, f"the disk of LUN {lun} of HBA {hba_id}")
    return LunDevice(where, disk, generic, links_of(disk))


def wait_for_generic(hba_id: int, lun: int, *, timeout: float = 30.0) -> Path:
    """Return ``/dev/sgN`` of a linked LUN, disk or not, as soon as it can be opened.

    Args:
        hba_id: Of the HBA.
        lun: Its number.
        timeout: Seconds.

    Raises:
        HostError: It has not come by then (the kernel may lack sg), or there is no such HBA.
    """
    nodes = observer.scsi_device(_address(hba_id, lun)) / "scsi_generic"
    return _wait("scsi_generic", _child(nodes), timeout, f"the sg node of LUN {lun} of HBA {hba_id}")


def links_of(disk: Path) -> tuple[Path, ...]:
    """Return the further names that udev gave a disk, the stable ones (``by-id``) first."""
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


def _child(directory: Path) -> Callable[[pyudev.Context], Path | None]:
    """Return a search for the one device whose directory appears in `directory`."""

    def found(context: pyudev.Context) -> Path | None:
        names = paths.entries(directory)
        return _node(context, names[0]) if names else None

    return found


def _node(context: pyudev.Context, device: Path) -> Path | None:
    """Return the node of the device at a path in /sys once it is ready, else None."""
    try:
        known = pyudev.Devices.from_sys_path(context, str(device.resolve()))
    except pyudev.DeviceNotFoundError:
        return None
    node = Path(known.device_node or "")
    try:
        # A plain file can stand in its place: ``dd of=/dev/sda`` makes one when the disk is gone.
        if node.stat().st_rdev != known.device_number:
            return None
    except FileNotFoundError:
        return None
    return node if known.is_initialized or not _udev_runs() else None


def _wait(subsystem: str, found: Callable[[pyudev.Context], Path | None], timeout: float, what: str) -> Path:
    """Return what `found` finds, looking now and after each event of `subsystem`.

    The monitor listens before the first look, so no event falls between the two.
    """
    context = _context()
    monitor = pyudev.Monitor.from_netlink(context, "udev" if _udev_runs() else "kernel")
    monitor.filter_by(subsystem)
    monitor.start()
    deadline = time.monotonic() + timeout
    while (node := found(context)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HostError(f"{what} did not appear within {timeout:g} s", cure=_cure())
        monitor.poll(left)  # None also for an event that the filter drops: only the clock ends this
    return node


def _context() -> pyudev.Context:
    """Return this thread's connection to libudev.

    Kept, because pyudev looks for the library in three child processes for each new one; not shared,
    because libudev is not made for several threads.
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
        return "see dmesg and `udevadm monitor`; is the ring being served?"
    return "see dmesg; is /dev a devtmpfs, and is the ring being served?"
