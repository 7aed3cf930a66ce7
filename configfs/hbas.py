"""HBAs and LUNs: tcm_loop targets, and the links from them to backstores.

Knows only the name of a backstore. The kernel scans a LUN when it is linked, and flushes it when it is
unlinked: both wait for completions on the ring, which another thread or process must serve meanwhile
(`link_lun` and `unlink_lun` release the interpreter's lock while they wait).
"""

import errno
import fcntl
import logging
from pathlib import Path
from typing import Final, NoReturn

from vscsihba.configfs import backstores, lio, observer, paths
from vscsihba.configfs.dirty_pages import write_back
from vscsihba.configfs.names import backstore_name, check_lun, wwn_of
from vscsihba.configfs.objects import Hba, Lun
from vscsihba.errors import HostError, InUseError

log = logging.getLogger(__name__)

_BLKRRPART: Final = 0x125F
"""ioctl, ``linux/fs.h``."""


def create_hba(hba_id: int) -> int:
    """Create the tcm_loop target of an HBA, or complete one whose creation was cut short.

    Returns:
        N of ``/sys/class/scsi_host/hostN``.

    Raises:
        UsageError: The id is not within 0..255.
        InUseError: Its WWN belongs to a target of another program.
        HostError: The kernel refuses.
    """
    hba = _ours(hba_id)
    if hba is None or not hba.complete:
        lio.create_target(wwn_of(hba_id))
        hba = _ours(hba_id)
    if hba is None or hba.host is None:
        raise HostError(f"HBA {hba_id} has no SCSI host", cure="see dmesg for the kernel's reason")
    return hba.host


def find_lun(hba_id: int, lun: int) -> Lun | None:
    """Return a LUN of an HBA, None if it does not exist; reads nothing else.

    Raises:
        UsageError: The id or the LUN is out of range.
        InUseError: The LUN's backstore belongs to another program.
    """
    directory = _directory(hba_id, lun)
    if not directory.exists():
        return _exported(backstore_name(hba_id, lun), lun)
    # First from the backstore: the LUN's own directory is locked while the kernel scans the LUN.
    usual = backstores.find_directory(backstore_name(hba_id, lun))
    if usual is not None and (wwn_of(hba_id), lun) in observer.links_to(usual):
        behind: Path | None = usual
    else:
        behind = observer.linked(directory)
    if behind is not None and not observer.is_our_backstore(behind):
        refuse_foreign(hba_id)
    return observer.lun(lun, behind, observer.host_of(target_of(hba_id)))


def _exported(name: str, lun: int) -> Lun | None:
    """Return a LUN that only exports show, None if there is none."""
    directory = backstores.find_directory(name)
    backstore = observer.backstore(directory) if directory is not None else None
    return Lun(lun, name, local=False) if backstore is not None and observer.is_exported(backstore) else None


def delete_hba(hba_id: int) -> None:
    """Remove the tcm_loop target of an HBA; unlink its LUNs before.

    Raises:
        InUseError: It still has a LUN, or the target belongs to another program.
        HostError: There is no such HBA, or the kernel refuses.
    """
    hba = _ours(hba_id)
    if hba is None:
        raise HostError(f"there is no HBA {hba_id}")
    if linked := sum(lun.local for lun in hba.luns.values()):
        raise InUseError(f"HBA {hba_id} still has {linked} LUNs", cure="unlink them first")
    lio.delete_target(wwn_of(hba_id))


def link_lun(hba_id: int, lun: int, backstore: str) -> None:
    """Create a LUN with a backstore behind it; blocks until the kernel has scanned the LUN.

    Serve the ring of the backstore meanwhile. The device nodes appear a little later: see `wait_for_lun`.

    Raises:
        InUseError: The LUN exists.
        HostError: There is no such HBA or backstore, the kernel refuses, or the LUN did not answer.
    """
    host = observer.host_of(target_of(hba_id))
    if host is None:
        raise HostError(f"there is no HBA {hba_id}")
    if _directory(hba_id, lun).exists():
        raise InUseError(f"LUN {lun} of HBA {hba_id} exists already", cure="choose another number")
    directory = backstores.directory_of(backstore)
    lio.link(wwn_of(hba_id), lun, backstore, backstores.index_of(directory))
    # The link succeeds in the kernel even if INQUIRY got no answer.
    if not observer.scsi_device(observer.address(host, lun)).exists():
        lio.unlink(wwn_of(hba_id), lun)
        raise HostError(
            f"Linux found no device at LUN {lun} of HBA {hba_id}",
            cure=f"is the ring of {backstore} being served?",
        )


def unlink_lun(hba_id: int, lun: int, *, served: bool = True) -> None:
    """Remove a LUN; blocks until the kernel has released the disk. One that is not local is left alone.

    Args:
        hba_id: Of the HBA.
        lun: Its number; it need not be complete.
        served: Whether the ring is served. If it is, dirty pages of the disk are written first. If not, the
            disk goes offline first and every pending command fails, so that this returns without a
            server; dirty pages are lost.

    Raises:
        InUseError: The LUN's backstore belongs to another program.
        HostError: There is no such LUN, or the kernel refuses.
    """
    directory = _directory(hba_id, lun)
    if not directory.exists():
        if _exported(backstore_name(hba_id, lun), lun) is not None:
            return
        raise HostError(f"HBA {hba_id} has no LUN {lun}")
    if served:
        behind = observer.linked(directory)
        if behind is not None and not observer.is_our_backstore(behind):
            refuse_foreign(hba_id)
        disk = observer.lun(lun, behind, observer.host_of(target_of(hba_id))).disk
        if disk is not None:
            try:
                write_back(disk)
            except HostError as error:
                log.warning("LUN %d of HBA %d is removed, but %s", lun, hba_id, error)
        lio.unlink(wwn_of(hba_id), lun)
    else:
        hba = _ours(hba_id)
        if hba is not None and lun in hba.luns:
            abandon_lun(hba_id, hba.luns[lun])


def abandon_lun(hba_id: int, lun: Lun) -> None:
    """Remove a LUN whose ring is not served: fail its pending commands, then unlink it.

    The order matters: an offline disk gets no command again, so a command that the ring returns as BUSY
    fails instead of being retried. (Deleting the SCSI device would work too, but then tcm_loop loses count
    of its ports and keeps the nexus for ever.) Only the last flush is sent all the same, since
    scsi_remove_device() turns an offline device into a cancelled one, and sd would retry the flush for six
    minutes. Therefore sd is told that the disk has no write cache (sd.c, cache_type_store(), which sends
    no command).

    Raises:
        HostError: The kernel refuses.
    """
    if not lun.local:
        _end_commands(lun)
        return
    host = observer.host_of(target_of(hba_id))
    address = observer.address(host, lun.number)
    cache = observer.scsi_device(address) / "scsi_disk" / address / "cache_type"
    if cache.exists():
        paths.write(cache, "temporary write through")
    state = observer.scsi_device(address) / "state"
    if paths.read(state) not in (None, "offline", "transport-offline"):
        paths.write(state, "offline")
    _end_commands(lun)
    lio.unlink(wwn_of(hba_id), lun.number)


def _end_commands(lun: Lun) -> None:
    """Answer the commands of a LUN's ring, and all that come, with BUSY."""
    if lun.backstore is not None:
        backstores.set_block(lun.backstore, blocked=True)
        backstores.reset_ring(lun.backstore)


def target_of(hba_id: int) -> Path:
    """Return the configfs directory of an HBA's target, which need not exist.

    Raises:
        UsageError: The id is not within 0..255.
    """
    return paths.loopback() / wwn_of(hba_id)


def set_queue_depth(address: str, depth: int) -> None:
    """Set the number of commands that the initiator sends to a LUN at once.

    Args:
        address: ``host:channel:target:lun``.
        depth: Commands; tcm_loop takes at most 1024 for an HBA.

    Raises:
        HostError: There is no such SCSI device, or the kernel refuses.
    """
    paths.write(observer.scsi_device(address) / "queue_depth", str(depth))


def set_command_timeout(address: str, seconds: int) -> None:
    """Set the time after which the initiator aborts a command (sd: 30 s).

    Args:
        address: ``host:channel:target:lun``.
        seconds: From sending a command to its end.

    Raises:
        HostError: There is no such SCSI device, or the kernel refuses.
    """
    paths.write(observer.scsi_device(address) / "timeout", str(seconds))


def default_queue_depth(address: str) -> int | None:
    """Return the queue depth of new LUNs of the same host (``cmd_per_lun``), None if it is not known."""
    host = address.partition(":")[0]
    return paths.read_int(paths.SYSFS / "class/scsi_host" / f"host{host}" / "cmd_per_lun")


def rescan(address: str) -> None:
    """Make Linux read the capacity of a LUN again, after a resize.

    Raises:
        HostError: There is no such SCSI device, or the kernel refuses.
    """
    paths.write(observer.scsi_device(address) / "rescan", "1")


def reread_partitions(disk: Path) -> None:
    """Make Linux read the partition table of a disk again, after its content has changed.

    Args:
        disk: Its node, ``/dev/sdX``.

    Raises:
        InUseError: One of its partitions is in use; Linux keeps the old table.
        HostError: The disk cannot be opened.
    """
    try:
        with disk.open("rb", buffering=0) as node:
            fcntl.ioctl(node, _BLKRRPART)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUseError(
                f"{disk}: Linux still uses the old partition table, because a partition is in use",
                cure=f'once it is not in use, run "blockdev --rereadpt {disk}"',
            ) from error
        raise HostError(f"{disk}: {error.strerror}") from error


def refuse_foreign(hba_id: int) -> NoReturn:
    """Refuse an id that another program uses.

    Raises:
        InUseError: Always.
    """
    raise InUseError(
        f"HBA id {hba_id} is in use: target {wwn_of(hba_id)} belongs to another program",
        cure="choose another id, or remove that target",
    )


def _directory(hba_id: int, lun: int) -> Path:
    return target_of(hba_id) / observer.PORTAL_GROUP / "lun" / f"lun_{check_lun(lun)}"


def _ours(hba_id: int) -> Hba | None:
    """Return an HBA, None if it does not exist.

    Raises:
        InUseError: Its target belongs to another program.
    """
    observed = observer.observe()
    if hba_id in observed.foreign:
        refuse_foreign(hba_id)
    return observed.hbas.get(hba_id)
