"""An export under test: its document, and the kernel's folders of it."""

from pathlib import Path
from typing import Any, Final

from tests.vm.daemon import files, shows

NAME: Final = "iqn.2026-11.example:store"
HOST: Final = "iqn.2026-11.example:host1"
PORTAL: Final = "127.0.0.1:3260"
ISCSI: Final = Path("/sys/kernel/config/target/iscsi")


def document(folder: Path, *names: str, **export: Any) -> dict[str, Any]:
    """Return a document whose export shows each of its disks."""
    luns = [{"lun": number, "backstore": name} for number, name in enumerate(names)]
    whole = {"transport": "iscsi", "name": NAME, "portals": [PORTAL], "luns": luns, **export}
    return {
        "version": 1,
        "backstores": files(folder, *names, size=64),
        "hbas": [shows(0, *names, engines=2)],
        "exports": [whole],
    }


def left() -> list[str]:
    """Return the targets and backstores of ours in the kernel."""
    backstores = Path("/sys/kernel/config/target/core").glob("user_*/vscsihba*")
    return [path.name for path in [*ISCSI.glob("iqn.*"), *backstores]]


def remove_by_hand(*, whole: bool) -> None:
    """Remove LUN 1 of the export, or all of the export, as another program could do."""
    group = ISCSI / NAME / "tpgt_1"
    folders = [group / "acls" / HOST / "lun_1", group / "lun/lun_1"]
    if whole:
        folders += [
            group / "acls" / HOST / "lun_0",
            group / "lun/lun_0",
            group / "acls" / HOST,
            group / "np" / PORTAL,
        ]
        folders += [group, group.parent]
    for folder in folders:
        for link in [entry for entry in folder.iterdir() if entry.is_symlink()]:
            link.unlink()
        folder.rmdir()
