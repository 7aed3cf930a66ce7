"""uio devices: finding, opening, mapping, waiting and kicking (drivers/uio/uio.c).

Knows the character device and its place in sysfs, not what the map holds.
"""

import contextlib
import errno
import mmap
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from vscsihba.errors import DeviceGoneError, HostError, InUseError

SYSFS = Path("/sys/class/uio")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"tcm-user/(\d+)/([^/]+)(?:/([^/]*)(?:/(.*))?)?", re.ASCII | re.DOTALL)
"""``tcm-user/HBA/NAME/DEV_CONFIG``, the last part only if dev_config is set (tcmu_update_uio_info)."""
_KICK = b"\0\0\0\0"


@dataclass(frozen=True, slots=True)
class UioDevice:
    """A uio device that carries a TCMU ring.

    Attributes:
        node: The character device, such as ``/dev/uio0``.
        hba: The number N of the backstore's ``core/user_N``.
        name: The backstore's name.
        subtype: The first part of its dev_config, which names the owning program.
        config: The rest of dev_config.
        map_size: Bytes to map; any other size is refused.
        instance: Inode number of its sysfs folder: a device that was removed and made again under the
            same name has a different one (kernfs_new_node).
    """

    node: Path
    hba: int
    name: str
    subtype: str
    config: str
    map_size: int
    instance: int = field(default=0, compare=False)


def discover(sysfs: Path = SYSFS) -> list[UioDevice]:
    """Return every TCMU device of the machine, of any program, by number."""
    entries = [entry for entry in sysfs.glob("uio*") if entry.name[3:].isdecimal()]
    devices = [read_device(entry) for entry in sorted(entries, key=lambda entry: int(entry.name[3:]))]
    return [device for device in devices if device is not None]


def read_device(entry: Path) -> UioDevice | None:
    """Read one sysfs entry; None if it is not a TCMU device, or has just been removed.

    The configuration is taken as it was written to dev_config, with blanks at its end; bytes that
    are not UTF-8 are decoded as by `os.fsdecode`.
    """
    try:
        name = os.fsdecode((entry / "name").read_bytes()).removesuffix("\n")
        size = int((entry / "maps/map0/size").read_text(), 16)
        instance = entry.stat().st_ino
    except OSError:
        return None
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    hba, backstore, subtype, config = match.groups(default="")
    return UioDevice(Path("/dev") / entry.name, int(hba), backstore, subtype, config, size, instance)


def identify(device: UioDevice, boot_id: Path = BOOT_ID) -> str:
    """Return a name of the device that is unique across boots and across devices made again.

    Raises:
        HostError: The boot id cannot be read.
    """
    try:
        boot = boot_id.read_text().strip()
    except OSError as error:
        raise HostError(f"{boot_id}: {error.strerror}") from error
    return f"{boot}/{device.instance}/user_{device.hba}/{device.name}/{device.map_size}"


class Uio:
    """An opened and mapped uio device. Only one process can open it.

    Args:
        device: From `discover`.

    Raises:
        InUseError: Another process has it open.
        DeviceGoneError: The device does not exist any more.
        HostError: It cannot be opened or mapped for another reason.
    """

    def __init__(self, device: UioDevice) -> None:
        self.device = device
        self._fd = _open(device.node)
        try:
            mapping = mmap.mmap(self._fd, device.map_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            os.close(self._fd)
            raise HostError(
                f"{device.node}: mapping {device.map_size} bytes failed: {error.strerror}"
            ) from error
        # The map in a forked child would keep the device busy after the death of this process.
        mapping.madvise(mmap.MADV_DONTFORK)
        self.memory = memoryview(mapping)
        self._map: mmap.mmap | None = mapping

    def fileno(self) -> int:
        """Return the descriptor; readable means notified, or removed."""
        return self._fd

    def acknowledge(self) -> None:
        """Clear the notifications (several come as one); call this before reading the ring.

        Raises:
            DeviceGoneError: The kernel has removed the device.
        """
        try:
            os.read(self._fd, 4)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(error) from error

    def kick(self) -> None:
        """Let the kernel consume the completions up to cmd_tail, in this thread.

        Raises:
            DeviceGoneError: The kernel has removed the device.
        """
        try:
            os.write(self._fd, _KICK)
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> DeviceGoneError:
        return DeviceGoneError(f"{self.device.node}: the kernel removed the device ({error.strerror})")

    def close(self) -> None:
        """Unmap and close; twice is harmless.

        A view that a stuck thread still holds keeps the map, and with it the pages and the device,
        until it is released: unmapping under it would crash.
        """
        if self._map is None:
            return
        with contextlib.suppress(BufferError):
            self.memory.release()
            self._map.close()
        self._map = None  # else this object would keep the map longer than that view
        os.close(self._fd)
        self._fd = -1


def _open(node: Path) -> int:
    try:
        return os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUseError(f"{node}: another process serves this device") from error
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise DeviceGoneError(f"{node}: there is no such device") from error
        raise HostError(f"{node}: {error.strerror}") from error
