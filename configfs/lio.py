"""A wrapper of rtslib; only this module and `lio_iscsi` import it.

Creates and removes single objects, and turns every failure into an error of `vscsihba.errors`. Existing
objects are read by `observer` without rtslib, because rtslib's look-ups have side effects: finding a TPG
without a nexus gives it one, even if the TPG belongs to another program.

`_UserBackstore` keeps rtslib from walking over all objects for each single one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EBUSY, EEXIST, ENOENT
from pathlib import Path

from rtslib_fb.fabric import LoopbackFabricModule
from rtslib_fb.target import LUN, TPG, Target
from rtslib_fb.tcm import UserBackedStorageObject, bs_params
from rtslib_fb.utils import RTSLibError

from vscsihba.configfs import paths
from vscsihba.configfs.names import initiator_of
from vscsihba.errors import HostError, InUseError

TAG = 1
"""Tag of the one target portal group of a target: ``tpgt_1``."""


class _UserBackstore(UserBackedStorageObject):  # type: ignore[misc]  # rtslib has no annotations
    """rtslib's TCMU object, without two of its side effects."""

    def _config_pr_aptpl(self) -> None:
        """Do nothing: `backstores` restores reservations itself.

        rtslib creates an RTSRoot for it, which moves the kernel's dbroot to /etc/target, and fails or
        warns where that is not possible.
        """

    def _gen_attached_luns(self) -> Iterator[object]:
        """Return nothing: the caller has unlinked the LUNs, and otherwise the kernel refuses with EBUSY.

        rtslib would walk every LUN of every target to find those of a single backstore.
        """
        return iter(())


class _PortalGroup(TPG):  # type: ignore[misc]  # rtslib has no annotations
    """rtslib's portal group; its initiator port has the same name each time, and not a random one."""

    def _set_nexus(self, _wwn: str | None = None) -> None:
        super()._set_nexus(initiator_of(self.parent_target.wwn))


# rtslib looks up the directory name by class.
bs_params[_UserBackstore] = bs_params[UserBackedStorageObject]


def create_backstore(name: str, index: int, *, dev_config: str, size: int, serial: str, control: str) -> None:
    """Create and enable ``core/user_<index>/<name>``; a failure leaves nothing behind.

    Args:
        name: Of the backstore.
        index: Of the TCMU HBA. With it, rtslib does not use its cache of all backstores, which does not
            see those of other processes.
        dev_config: Subtype and configuration, with a slash between.
        size: Bytes.
        serial: For ``wwn/vpd_unit_serial``.
        control: More settings for the control file, ``key=value`` separated by commas, written at once
            before the device is enabled; a kernel skips unknown ones.

    Raises:
        FileExistsError: The index is taken.
        HostError: The kernel refuses.
    """
    if (paths.core() / f"user_{index}").exists():
        raise FileExistsError(EEXIST, "index is taken", f"user_{index}")
    with translated(f"create backstore {name}"):
        _UserBackstore(name, dev_config, size, serial, control=control, index=index)


def existing_backstore(name: str, index: int) -> UserBackedStorageObject:
    """Return rtslib's object of ``core/user_<index>/<name>``, which exists."""
    return _UserBackstore(name, index=index)


def delete_backstore(name: str, index: int) -> None:
    """Remove ``core/user_<index>/<name>``, and the HBA directory with it.

    Raises:
        InUseError: A LUN is still linked to it.
        HostError: The kernel refuses.
    """
    with translated(f"delete backstore {name}"):
        _UserBackstore(name, index=index).delete()


def create_target(wwn: str) -> None:
    """Create a tcm_loop target with its portal group and nexus, or complete one whose creation was cut short.

    Raises:
        HostError: The kernel refuses.
    """
    with translated(f"create target {wwn}"):
        _PortalGroup(Target(LoopbackFabricModule(), wwn), TAG)


def delete_target(wwn: str) -> None:
    """Remove a tcm_loop target, its portal group and LUNs.

    Raises:
        HostError: The kernel refuses.
    """
    with translated(f"delete target {wwn}"):
        Target(LoopbackFabricModule(), wwn, "lookup").delete()


def link(wwn: str, lun: int, name: str, index: int) -> None:
    """Create a LUN with a backstore behind it; returns after the kernel has scanned it.

    Raises:
        HostError: The LUN exists, the target or the backstore does not, or the kernel refuses.
    """
    with translated(f"link LUN {lun} of {wwn} to {name}"):
        LUN(_portal_group(wwn), lun, _UserBackstore(name, index=index), alias=name)


def unlink(wwn: str, lun: int) -> None:
    """Remove a LUN; returns after the kernel has released its disk.

    Raises:
        HostError: It does not exist, or the kernel refuses.
    """
    with translated(f"unlink LUN {lun} of {wwn}"):
        LUN(_portal_group(wwn), lun).delete()


def _portal_group(wwn: str) -> _PortalGroup:
    return _PortalGroup(Target(LoopbackFabricModule(), wwn, "lookup"), TAG, "lookup")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of rtslib and of the system into errors of `vscsihba.errors`.

    Raises:
        InUseError: The kernel reports EBUSY.
        HostError: Anything else.
    """
    try:
        yield
    except (RTSLibError, OSError) as error:
        cause = _system_error(error)
        if cause is None:
            raise HostError(f"cannot {doing}: {error}") from error
        kind = InUseError if cause.errno == EBUSY else HostError
        raise kind(f"cannot {doing}: {_reason(cause)}", cure=_CURES.get(cause.errno or 0)) from cause


_CURES = {
    EBUSY: "remove what still uses it first",
    ENOENT: "see dmesg for the kernel's reason",
}


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the system's error that an error of rtslib wraps, if there is one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _reason(error: OSError) -> str:
    name = f" ({Path(error.filename).name})" if error.filename else ""
    return f"{error.strerror}{name}"
