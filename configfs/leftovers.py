"""Leftovers: the kernel's objects of an HBA whose process has died, complete or not.

They can be removed without a server for their rings, but not while a ring is served or a disk is in use.
"""

from collections.abc import Collection, Sequence

from vscsihba.configfs import backstores, hbas, observer, paths
from vscsihba.configfs.names import backstore_name
from vscsihba.configfs.objects import Backstore, Lun, Observed
from vscsihba.configfs.users import openers_of, users_of
from vscsihba.errors import InUseError


def clear_hba(hba_id: int, *, force: bool = False, keep: Collection[int] = ()) -> list[str]:
    """Remove the LUNs, the target and the backstores that are left of an HBA.

    Their pending commands fail, and dirty pages of their disks are lost.

    Args:
        hba_id: 0..255.
        force: Remove disks that are in use too.
        keep: LUNs to keep; if there is one, the target is kept too.

    Returns:
        The removed objects, a text each; empty if nothing was left.

    Raises:
        InUseError: The target belongs to another program, a ring is served, or a disk is in use.
        HostError: The kernel refuses.
    """
    observed = observer.observe()
    if hba_id in observed.foreign:
        hbas.refuse_foreign(hba_id)
    hba = observed.hbas.get(hba_id)
    kept = {backstore_name(hba_id, lun) for lun in keep}
    leftover = [backstore for backstore in _backstores(hba_id, observed) if backstore.name not in kept]
    luns = [lun for lun in hba.luns.values() if lun.number not in keep] if hba is not None else []
    _check_free(hba_id, luns, leftover, force=force)
    removed = []
    if hba is not None:
        all_luns = len(luns) == len(hba.luns)
        if all_luns:
            _take_offline(hba_id)
        for lun in luns:
            hbas.abandon_lun(hba_id, lun)
        if all_luns:
            hbas.delete_hba(hba_id)
            removed.append(f"HBA {hba_id} with {len(luns)} LUNs")
        else:
            removed += [f"LUN {lun.number} of HBA {hba_id}" for lun in luns]
    for backstore in leftover:
        backstores.delete_backstore(backstore.name)
        removed.append(f"backstore {backstore.name}")
    return removed


def _backstores(hba_id: int, observed: Observed) -> list[Backstore]:
    """Return the backstores that belong to an HBA: by link or by name, and to no other HBA by link."""
    by_id = observed.hbas
    linked = {lun.backstore for lun in by_id[hba_id].luns.values()} if hba_id in by_id else set()
    elsewhere = {lun.backstore for key, hba in by_id.items() if key != hba_id for lun in hba.luns.values()}
    prefix = backstore_name(hba_id, 0).removesuffix("0")
    return [
        backstore
        for name, backstore in observed.backstores.items()
        if (name in linked or name.startswith(prefix)) and name not in elsewhere
    ]


def _check_free(hba_id: int, luns: Sequence[Lun], leftover: list[Backstore], *, force: bool) -> None:
    servers = openers_of(*(backstore.uio for backstore in leftover if backstore.uio is not None))
    if servers:
        raise InUseError(
            f"HBA {hba_id} is being served by {', '.join(servers)}",
            cure="end that process, or choose another id",
        )
    disks = [lun.disk for lun in luns if lun.disk is not None]
    users = [user for disk in disks for user in users_of(disk)]
    if users and not force:
        raise InUseError(
            f"HBA {hba_id} is left over from a process that ended, but {users[0]}",
            cure="detach it there first (a lazy `umount -l` does not wait for the disk)",
        )


def _take_offline(hba_id: int) -> None:
    """Make the initiator's commands fail at once (tcm_loop.c, tcm_loop_tpg_transport_status_store()).

    A process that was killed while it linked a LUN stays in the kernel, which scans the LUN; otherwise the
    scan would be retried for 80 s.
    """
    status = hbas.target_of(hba_id) / observer.PORTAL_GROUP / "transport_status"
    if status.exists():
        paths.write(status, "offline")
