"""Backstores: the TCMU devices behind the LUNs, created, found, changed and removed one at a time.

The ring of a backstore must be served before a LUN is linked to it; serving it is the caller's part. Knows
nothing of LUNs.
"""

import os
from contextlib import ExitStack
from errno import EEXIST
from pathlib import Path
from typing import Final

from vscsihba.configfs import devices, lio, observer, paths
from vscsihba.configfs.model import BackstoreSpec
from vscsihba.configfs.names import check_name, dev_config, is_ours
from vscsihba.configfs.objects import Backstore
from vscsihba.errors import HostError, InUseError

_ATTEMPTS: Final = 64


def create_backstore(spec: BackstoreSpec, *, timeout: float = 10.0) -> Backstore:
    """Create a backstore, enable it and wait for the device node of its ring.

    Args:
        spec: Its settings.
        timeout: Seconds to wait for ``/dev/uioN``.

    Returns:
        The backstore; serve its ring, then link a LUN.

    Raises:
        InUseError: A backstore of that name exists.
        HostError: The kernel refuses, or the node does not appear; nothing is left behind.
    """
    if find_directory(spec.name) is not None:
        raise InUseError(f"a backstore {spec.name} exists already", cure="choose another name, or remove it")
    index = _create(spec)
    with ExitStack() as undo:
        undo.callback(lio.delete_backstore, spec.name, index)
        _configure(paths.core() / f"user_{index}" / spec.name, spec)
        uio = devices.wait_for_uio(spec.name, index, timeout=timeout)
        undo.pop_all()
    return Backstore(spec, index, enabled=True, uio=uio)


def delete_backstore(name: str) -> None:
    """Remove a backstore, complete or not; its uio device disappears.

    Raises:
        InUseError: A LUN is still linked to it.
        HostError: vscsihba has no backstore of that name, or the kernel refuses.
    """
    lio.delete_backstore(name, index_of(directory_of(name)))


def find_backstore(name: str) -> Backstore:
    """Return a backstore of vscsihba as it is in the kernel.

    Raises:
        HostError: vscsihba has no backstore of that name.
    """
    backstore = observer.backstore(directory_of(name))
    if backstore is None:
        raise HostError(f"there is no backstore {name}")
    return backstore


def resize_backstore(name: str, size: int) -> None:
    """Set a new capacity in bytes while the backstore works.

    Linux reads the capacity again after a unit attention of the LUN, or after `rescan`.

    Raises:
        HostError: vscsihba has no backstore of that name, or the kernel refuses.
    """
    # Not attrib/dev_size: on an enabled device the kernel announces that by netlink and fails with
    # ESRCH where no program listens (target_core_user.c, tcmu_send_dev_size_event()).
    paths.write(directory_of(name) / "control", f"dev_size={size}")


def set_block(name: str, *, blocked: bool) -> None:
    """Answer every new command with BUSY, or stop doing so (``action/block_dev``).

    Raises:
        HostError: vscsihba has no backstore of that name, or the kernel refuses.
    """
    paths.write(directory_of(name) / "action" / "block_dev", "1" if blocked else "0")


def reset_ring(name: str) -> None:
    """Answer every command in the ring with BUSY and empty the ring (``action/reset_ring``).

    Stop serving the ring before: the kernel uses its buffers for other commands at once.

    Raises:
        HostError: vscsihba has no backstore of that name, or the kernel refuses.
    """
    paths.write(directory_of(name) / "action" / "reset_ring", "1")


def free_kept_buf(name: str, cmd_id: int) -> None:
    """Free the buffer of a command that was answered with KEEP_BUF (``action/free_kept_buf``, 5.15).

    Raises:
        HostError: vscsihba has no backstore of that name, or no such buffer is kept.
    """
    paths.write(directory_of(name) / "action" / "free_kept_buf", str(cmd_id))


def set_attribute(name: str, attribute: str, value: str | int) -> None:
    """Set ``attrib/<attribute>``.

    Raises:
        HostError: vscsihba has no backstore of that name, the kernel does not know the attribute, or refuses
            the value; some can only be set while no LUN is linked.
    """
    paths.write(directory_of(name) / "attrib" / attribute, str(value))


def directory_of(name: str) -> Path:
    """Return the configfs directory of a backstore of vscsihba.

    Raises:
        HostError: vscsihba has no backstore of that name.
    """
    directory = find_directory(check_name(name))
    if directory is None:
        raise HostError(f"there is no backstore {name}")
    if not is_ours(name, paths.read(directory / "attrib" / "dev_config") or ""):
        raise InUseError(f"backstore {name} is not managed by vscsihba")
    return directory


def find_directory(name: str) -> Path | None:
    """Return the directory of a TCMU backstore, None if no backstore has that name.

    Names are unique, so the index is found by a walk over all backstores, once for each backstore that is
    created or linked. The walk uses strings since paths are slow.
    """
    core = str(paths.core())
    for hba in _hbas():
        if os.path.isdir(f"{core}/{hba}/{name}"):  # noqa: PTH112 - see above
            return Path(core, hba, name)
    return None


def _hbas() -> list[str]:
    """Return the names of all TCMU HBAs: ``user_N``."""
    try:
        return [name for name in os.listdir(paths.core()) if name.startswith("user_")]  # noqa: PTH208
    except FileNotFoundError:
        return []


def index_of(directory: Path) -> int:
    """Return N of a backstore's directory ``core/user_N/NAME``."""
    return int(directory.parent.name.removeprefix("user_"))


def _create(spec: BackstoreSpec) -> int:
    """Create the kernel's object at the lowest free index and return the index.

    If another program takes the same index at the same moment, try the next one.
    """
    for _ in range(_ATTEMPTS):
        taken = set(_hbas())
        index = next(number for number in range(len(taken) + 1) if f"user_{number}" not in taken)
        try:
            lio.create_backstore(
                spec.name,
                index,
                dev_config=dev_config(spec.config),
                size=spec.size,
                serial=spec.serial,
                control=_control(spec),
            )
        except (FileExistsError, HostError) as error:
            if _lost_race(error):
                continue
            raise
        return index
    raise HostError(f"cannot create backstore {spec.name}: other programs take every index")


def _lost_race(error: Exception) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno == EEXIST


def _control(spec: BackstoreSpec) -> str:
    """Return the settings for the control file (target_core_user.c, tcmu_set_configfs_dev_params())."""
    settings = {
        # Otherwise the kernel asks a daemon such as tcmu-runner, if one runs, and that refuses backstores
        # of other programs.
        "nl_reply_supported": -1,
        "hw_block_size": spec.block_size,
        "hw_max_sectors": spec.hw_max_sectors,
        # The size of the area before that of its blocks: the kernel checks each against the other.
        "max_data_area_mb": spec.max_data_area_mb,
        "data_pages_per_blk": spec.data_pages_per_blk,
        "cmd_ring_size_mb": spec.cmd_ring_size_mb,
    }
    return ",".join(f"{key}={value}" for key, value in settings.items())


def _configure(directory: Path, spec: BackstoreSpec) -> None:
    """Set the attributes that must be in place before a LUN is linked, and restore reservations."""
    attrib = directory / "attrib"
    paths.write(attrib / "cmd_time_out", str(spec.cmd_time_out))
    paths.write(attrib / "qfull_time_out", str(spec.qfull_time_out))
    if (attrib / "tmr_notification").exists():
        paths.write(attrib / "tmr_notification", str(int(spec.tmr_notification)))
    _restore_reservations(directory, spec.serial)


def _restore_reservations(directory: Path, serial: str) -> None:
    """Restore the persistent reservations that outlive a power loss (APTPL) in the kernel.

    The kernel writes ``<dbroot>/pr/aptpl_<serial>`` but never reads it (target_core_pr.c,
    core_scsi3_update_aptpl_buf(), target_pr_res_aptpl_metadata_store()).
    """
    dbroot = paths.read(paths.CONFIGFS / "target" / "dbroot")
    saved = paths.read(Path(dbroot) / "pr" / f"aptpl_{serial}") if dbroot else None
    for block in (saved or "").split("PR_REG_START:")[1:]:
        lines = block.partition("PR_REG_END:")[0].split()[1:]
        paths.write(directory / "pr" / "res_aptpl_metadata", ",".join(lines))
