"""HBAs and LUNs: tcm_loop targets, and the links from them to backstores.

Knows of a backstore only its name. Linking makes the kernel scan the LUN, and unlinking
makes it flush: both wait for answers on the ring, which another thread or process must be
serving meanwhile (`link_lun`, `unlink_lun` release the interpreter's lock while they wait).
"""

import errno
import fcntl
from pathlib import Path
from typing import Final, NoReturn

from vscsihba.configfs import backstores, lio, observer, paths
from vscsihba.configfs.found import Hba, Lun
from vscsihba.configfs.names import backstore_name, check_lun, wwn_of
from vscsihba.errors import HostError, InUseError

_BLKRRPART: Final = 0x125F
"""ioctl, ``linux/fs.h``."""


def create_hba(hba_id: int) -> int:
    """Make the tcm_loop target of an HBA, or complete a half-made one of ours.

    Returns:
        N of ``/sys/class/scsi_host/hostN``.

    Raises:
        UsageError: The id is not within 0..255.
        InUseError: Its WWN belongs to somebody else's target.
        HostError: The kernel refuses.
    """
    found = _ours(hba_id)
    if found is None or not found.complete:
        lio.create_target(wwn_of(hba_id))
        found = _ours(hba_id)
    if found is None or found.host is None:
        raise HostError(f"HBA {hba_id} has no SCSI host", cure="see dmesg for the kernel's reason")
    return found.host


def find_lun(hba_id: int, lun: int) -> Lun | None:
    """Return what is at a LUN of an HBA of ours, None if there is nothing; nothing else is looked at.

    Raises:
        UsageError: The id or the LUN is out of range.
        InUseError: What is behind the LUN is somebody else's.
    """
    directory = _directory(hba_id, lun)
    if not directory.exists():
        return None
    # First as the backstore tells it: the LUN's own directory is locked while the kernel scans the LUN.
    usual = backstores.find_directory(backstore_name(hba_id, lun))
    if usual is not None and (wwn_of(hba_id), lun) in observer.links_to(usual):
        behind: Path | None = usual
    else:
        behind = observer.linked(directory)
    if behind is not None and not observer.is_our_backstore(behind):
        refuse_foreign(hba_id)
    return observer.lun(lun, behind, observer.host_of(target_of(hba_id)))


def delete_hba(hba_id: int) -> None:
    """Remove the tcm_loop target of an HBA; its LUNs must be unlinked before.

    Raises:
        InUseError: A LUN is still there, or the target is somebody else's.
        HostError: There is no such HBA, or the kernel refuses.
    """
    found = _ours(hba_id)
    if found is None:
        raise HostError(f"there is no HBA {hba_id}")
    if found.luns:
        raise InUseError(f"HBA {hba_id} still has {len(found.luns)} LUNs", cure="unlink them first")
    lio.delete_target(wwn_of(hba_id))


def link_lun(hba_id: int, lun: int, backstore: str) -> None:
    """Put a backstore behind a LUN; blocks until the kernel has asked what the LUN is.

    The ring of the backstore must be served while this runs. Its device nodes come a little
    later: see `wait_for_lun`.

    Raises:
        InUseError: The LUN exists.
        HostError: There is no such HBA or backstore, the kernel refuses, or nobody answered it.
    """
    host = observer.host_of(target_of(hba_id))
    if host is None:
        raise HostError(f"there is no HBA {hba_id}")
    if _directory(hba_id, lun).exists():
        raise InUseError(f"LUN {lun} of HBA {hba_id} exists already", cure="choose another number")
    directory = backstores.directory_of(backstore)
    lio.link(wwn_of(hba_id), lun, backstore, backstores.index_of(directory))
    # The kernel calls the link a success even when nobody answered its INQUIRY.
    if not observer.scsi_device(observer.address(host, lun)).exists():
        lio.unlink(wwn_of(hba_id), lun)
        raise HostError(
            f"Linux found no device at LUN {lun} of HBA {hba_id}",
            cure=f"is the ring of {backstore} being served?",
        )


def unlink_lun(hba_id: int, lun: int, *, served: bool = True) -> None:
    """Remove a LUN; blocks until the kernel has let go of the disk.

    Args:
        hba_id: Of the HBA.
        lun: Its number; a half-made one is removed too.
        served: The ring is being served: what the kernel has not yet written is written. Without
            (False), the disk goes offline first and everything that waits is failed, so that this ends
            although nobody answers; what was not written is lost.

    Raises:
        InUseError: What is behind the LUN is somebody else's.
        HostError: There is no such LUN, or the kernel refuses.
    """
    directory = _directory(hba_id, lun)
    if not directory.exists():
        raise HostError(f"HBA {hba_id} has no LUN {lun}")
    if served:
        behind = observer.linked(directory)
        if behind is not None and not observer.is_our_backstore(behind):
            refuse_foreign(hba_id)
        lio.unlink(wwn_of(hba_id), lun)
    else:
        found = _ours(hba_id)
        if found is not None and lun in found.luns:
            abandon_lun(hba_id, found.luns[lun])


def abandon_lun(hba_id: int, lun: Lun) -> None:
    """Remove a LUN whose ring nobody serves: fail everything that waits for it, then unlink it.

    The order matters: a disk that is offline gets no command again, so what the ring gives back as BUSY
    is failed instead of tried again. (Deleting the SCSI device would do too, but then tcm_loop loses
    count of its ports and keeps the nexus for ever.) Only the flush at the end is sent all the same, as
    scsi_remove_device() makes an offline device a cancelled one, and sd would try it for six minutes:
    so the disk is said to have no write cache (sd.c, cache_type_store(), which asks the disk nothing).

    Raises:
        HostError: The kernel refuses.
    """
    host = observer.host_of(target_of(hba_id))
    address = observer.address(host, lun.number)
    cache = observer.scsi_device(address) / "scsi_disk" / address / "cache_type"
    if cache.exists():
        paths.write(cache, "temporary write through")
    state = observer.scsi_device(address) / "state"
    if paths.read(state) not in (None, "offline", "transport-offline"):
        paths.write(state, "offline")
    if lun.backstore is not None:
        backstores.set_block(lun.backstore, blocked=True)
        backstores.reset_ring(lun.backstore)
    lio.unlink(wwn_of(hba_id), lun.number)


def target_of(hba_id: int) -> Path:
    """Return the configfs directory of an HBA's target, be it there or not.

    Raises:
        UsageError: The id is not within 0..255.
    """
    return paths.loopback() / wwn_of(hba_id)


def set_queue_depth(address: str, depth: int) -> None:
    """Set how many commands the initiator sends to a LUN at once.

    Args:
        address: ``host:channel:target:lun``.
        depth: Commands; tcm_loop takes at most 1024 for an HBA.

    Raises:
        HostError: There is no such SCSI device, or the kernel refuses.
    """
    paths.write(observer.scsi_device(address) / "queue_depth", str(depth))


def set_command_timeout(address: str, seconds: int) -> None:
    """Set how long the initiator waits for a command before it aborts it (sd: 30 s).

    Args:
        address: ``host:channel:target:lun``.
        seconds: Of whole commands, from when each is sent.

    Raises:
        HostError: There is no such SCSI device, or the kernel refuses.
    """
    paths.write(observer.scsi_device(address) / "timeout", str(seconds))


def default_queue_depth(address: str) -> int | None:
    """Return the depth that a LUN's host gives every new LUN (``cmd_per_lun``), None if it does not tell."""
    host = address.partition(":")[0]
    return paths.read_int(paths.SYSFS / "class/scsi_host" / f"host{host}" / "cmd_per_lun")


def rescan(address: str) -> None:
    """Let Linux ask a LUN for its capacity again, after a resize.

    Raises:
        HostError: There is no such SCSI device, or the kernel refuses.
    """
    paths.write(observer.scsi_device(address) / "rescan", "1")


def reread_partitions(disk: Path) -> None:
    """Let Linux look at the partition table of a disk again, whose content is another one now.

    Args:
        disk: Its node, ``/dev/sdX``.

    Raises:
        InUseError: One of its partitions is used; Linux still goes by the old table.
        HostError: It cannot be opened.
    """
    try:
        with disk.open("rb", buffering=0) as node:
            fcntl.ioctl(node, _BLKRRPART)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUseError(
                f"{disk}: Linux goes by the old partition table, a partition is in use",
                cure=f'when it is free: "blockdev --rereadpt {disk}"',
            ) from error
        raise HostError(f"{disk}: {error.strerror}") from error


def refuse_foreign(hba_id: int) -> NoReturn:
    """Say that an id is taken.

    Raises:
        InUseError: Always.
    """
    raise InUseError(
        f"HBA id {hba_id} is in use: target {wwn_of(hba_id)} is somebody else's",
        cure="choose another id, or remove that target",
    )


def _directory(hba_id: int, lun: int) -> Path:
    return target_of(hba_id) / observer.PORTAL_GROUP / "lun" / f"lun_{check_lun(lun)}"


def _ours(hba_id: int) -> Hba | None:
    """Look an HBA up.

    Raises:
        InUseError: Its target is somebody else's.
    """
    found = observer.observe()
    if hba_id in found.foreign:
        refuse_foreign(hba_id)
    return found.hbas.get(hba_id)
