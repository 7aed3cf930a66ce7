"""Leftovers: what a process that died left of its HBA, whole or half-made.

Removes them although nobody serves their rings, but never under a user's feet: not while the
rings are served, not while a disk is mounted.
"""

from collections.abc import Collection, Sequence

from vscsihba.configfs import backstores, hbas, observer, paths
from vscsihba.configfs.found import Backstore, Lun, Observed
from vscsihba.configfs.names import backstore_name
from vscsihba.configfs.users import openers_of, users_of
from vscsihba.errors import InUseError


def clear_hba(hba_id: int, *, force: bool = False, keep: Collection[int] = ()) -> list[str]:
    """Remove the LUNs, the target and the backstores that are left of an HBA.

    Everything that waits for them fails, and what Linux had not yet written is lost.

    Args:
        hba_id: 0..255.
        force: Also while a disk is mounted or otherwise in use.
        keep: LUNs that stay, and with any of them the target.

    Returns:
        What was removed, in words; empty if nothing was left.

    Raises:
        InUseError: The target is somebody else's, a ring is being served, or a disk is in use.
        HostError: The kernel refuses.
    """
    found = observer.observe()
    if hba_id in found.foreign:
        hbas.refuse_foreign(hba_id)
    hba = found.hbas.get(hba_id)
    kept = {backstore_name(hba_id, lun) for lun in keep}
    behind = [backstore for backstore in _backstores(hba_id, found) if backstore.name not in kept]
    going = [lun for lun in hba.luns.values() if lun.number not in keep] if hba is not None else []
    _check_free(hba_id, going, behind, force=force)
    removed = []
    if hba is not None:
        wholly = len(going) == len(hba.luns)
        if wholly:
            _take_offline(hba_id)
        for lun in going:
            hbas.abandon_lun(hba_id, lun)
        if wholly:
            hbas.delete_hba(hba_id)
            removed.append(f"HBA {hba_id} with {len(going)} LUNs")
        else:
            removed += [f"LUN {lun.number} of HBA {hba_id}" for lun in going]
    for backstore in behind:
        backstores.delete_backstore(backstore.name)
        removed.append(f"backstore {backstore.name}")
    return removed


def _backstores(hba_id: int, found: Observed) -> list[Backstore]:
    """Return the backstores that belong to an HBA: by link or by name, and to no other HBA by link."""
    mine = {lun.backstore for lun in found.hbas[hba_id].luns.values()} if hba_id in found.hbas else set()
    others = {lun.backstore for key, hba in found.hbas.items() if key != hba_id for lun in hba.luns.values()}
    prefix = backstore_name(hba_id, 0).removesuffix("0")
    return [
        backstore
        for name, backstore in found.backstores.items()
        if (name in mine or name.startswith(prefix)) and name not in others
    ]


def _check_free(hba_id: int, going: Sequence[Lun], behind: list[Backstore], *, force: bool) -> None:
    servers = openers_of(*(backstore.uio for backstore in behind if backstore.uio is not None))
    if servers:
        raise InUseError(
            f"HBA {hba_id} is being served by {', '.join(servers)}",
            cure="end that process, or choose another id",
        )
    disks = [lun.disk for lun in going if lun.disk is not None]
    users = [user for disk in disks for user in users_of(disk)]
    if users and not force:
        raise InUseError(
            f"HBA {hba_id} is left over from a process that ended, but {users[0]}",
            cure="detach it there first (a lazy `umount -l` does not wait for the disk)",
        )


def _take_offline(hba_id: int) -> None:
    """Let the initiator's commands fail at once (tcm_loop.c, tcm_loop_tpg_transport_status_store()).

    A process that was killed while it linked a LUN is still in the kernel, which scans that LUN; without
    this the scan would try again for 80 s.
    """
    status = hbas.target_of(hba_id) / observer.PORTAL_GROUP / "transport_status"
    if status.exists():
        paths.write(status, "offline")
