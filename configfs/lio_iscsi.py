"""A wrapper of rtslib's objects of iSCSI targets: each function makes or removes one object.

As `lio`, it turns every failure into an error of `vscsihba.errors`; existing objects are read by `iscsi`.
"""

from contextlib import ExitStack
from pathlib import Path

from rtslib_fb.fabric import ISCSIFabricModule
from rtslib_fb.target import LUN, TPG, MappedLUN, NetworkPortal, NodeACL, Target

from vscsihba.configfs import paths
from vscsihba.configfs.lio import TAG, existing_backstore, translated


class _MappedLun(MappedLUN):  # type: ignore[misc]  # rtslib has no annotations
    """rtslib's mapped LUN: it fails if it cannot be write-protected, and rtslib makes it writable then."""

    def _configure(self, tpg_lun: LUN, write_protect: bool, _alias: str | None) -> None:  # noqa: FBT001 - rtslib's
        directory = Path(self.path)
        (directory / "lun").symlink_to(tpg_lun.path)
        paths.write(directory / "write_protect", str(int(write_protect)))


def _fabric() -> ISCSIFabricModule:
    """Return rtslib's fabric for any name: it refuses ``iqn.2026-11.example:store``, which is valid."""
    fabric = ISCSIFabricModule()
    fabric.wwn_types = ("free",)
    return fabric


def create_target(name: str) -> None:
    """Create a target with one portal group, which is not enabled.

    Raises:
        HostError: It exists, or the kernel refuses.
    """
    with translated(f"create target {name}"), ExitStack() as undo:
        target = Target(_fabric(), name, "create")
        undo.callback(target.delete)
        TPG(target, TAG)
        undo.pop_all()


def create_group(name: str) -> None:
    """Create the portal group that a target lacks, since its creation or removal was cut short.

    Raises:
        HostError: There is no such target, or the kernel refuses.
    """
    with translated(f"create the portal group of {name}"):
        TPG(Target(_fabric(), name, "lookup"), TAG)


def delete_target(name: str) -> None:
    """Remove a target and everything in it; returns when its sessions have ended.

    Raises:
        HostError: It does not exist, or the kernel refuses.
    """
    with translated(f"delete target {name}"):
        Target(_fabric(), name, "lookup").delete()


def create_portal(name: str, portal: str) -> None:
    """Let a target listen on ``ADDRESS:PORT``.

    Raises:
        HostError: The kernel refuses: for instance, another program listens there.
    """
    address, _, port = portal.rpartition(":")
    with translated(f"listen on {portal} for {name}"):
        NetworkPortal(_group(name), address, int(port), "create")


def delete_portal(name: str, portal: str) -> None:
    """Stop listening on ``ADDRESS:PORT``; sessions over it end.

    Raises:
        HostError: There is no such portal, or the kernel refuses.
    """
    address, _, port = portal.rpartition(":")
    with translated(f"delete portal {portal} of {name}"):
        NetworkPortal(_group(name), address, int(port), "lookup").delete()


def link(name: str, lun: int, backstore: str, index: int) -> None:
    """Create a LUN of the target with a backstore behind it.

    Raises:
        HostError: The LUN exists, the backstore does not, or the kernel refuses.
    """
    with translated(f"link LUN {lun} of {name} to {backstore}"):
        LUN(_group(name), lun, existing_backstore(backstore, index), alias=backstore)


def unlink(name: str, lun: int) -> None:
    """Remove a LUN of the target; returns when its commands have ended.

    Raises:
        HostError: It does not exist, or the kernel refuses.
    """
    with translated(f"unlink LUN {lun} of {name}"):
        LUN(_group(name), lun).delete()


def create_acl(name: str, initiator: str) -> None:
    """Let an initiator log in; it sees no LUN yet.

    Raises:
        HostError: The kernel refuses.
    """
    with translated(f"allow {initiator} to log in to {name}"):
        NodeACL(_group(name), initiator, "create")


def delete_acl(name: str, initiator: str) -> None:
    """Let an initiator log in no more; its session ends.

    Raises:
        HostError: There is no such initiator, or the kernel refuses.
    """
    with translated(f"remove {initiator} from {name}"):
        NodeACL(_group(name), initiator, "lookup").delete()


def map_lun(name: str, initiator: str, lun: int, *, write_protect: bool) -> None:
    """Let an initiator see a LUN, under the same number.

    Raises:
        HostError: The kernel refuses.
    """
    with translated(f"show LUN {lun} of {name} to {initiator}"):
        group = _group(name)
        _MappedLun(NodeACL(group, initiator, "lookup"), lun, LUN(group, lun), write_protect)


def unmap_lun(name: str, initiator: str, lun: int) -> None:
    """Hide a LUN from an initiator.

    Raises:
        HostError: The initiator does not see it, or the kernel refuses.
    """
    with translated(f"hide LUN {lun} of {name} from {initiator}"):
        MappedLUN(NodeACL(_group(name), initiator, "lookup"), lun).delete()


def _group(name: str) -> TPG:
    return TPG(Target(_fabric(), name, "lookup"), TAG, "lookup")
