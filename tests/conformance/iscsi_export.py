"""The kernel's own iSCSI target on the loopback interface, in front of a backstore of ours.

Demo mode: anybody on this machine may log in and write, with no authentication, while the context is
entered. Knows iscsi_target_mod's folders in configfs (drivers/target/iscsi/iscsi_target_configfs.c).
"""

import subprocess
from pathlib import Path
from typing import Final, Self

FABRIC: Final = Path("/sys/kernel/config/target/iscsi")
PORTAL: Final = "127.0.0.1:3260"
_ATTRIBUTES: Final = {"authentication": 0, "generate_node_acls": 1, "demo_mode_write_protect": 0}


class IscsiExport:
    """A target with the backstore as its LUN 0, while the context is entered.

    Args:
        name: Makes the target's IQN.
        backstore: Its folder in configfs, ``core/user_N/NAME``.
    """

    def __init__(self, name: str, backstore: Path) -> None:
        self.iqn = f"iqn.2001-04.org.vscsihba:{name}"
        self._backstore = backstore
        self._target = FABRIC / self.iqn
        self._group = self._target / "tpgt_1"

    @property
    def url(self) -> str:
        """Where an initiator finds the disk."""
        return f"iscsi://{PORTAL}/{self.iqn}/0"

    def __enter__(self) -> Self:
        subprocess.run(["modprobe", "iscsi_target_mod"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        (self._group / "lun/lun_0").mkdir(parents=True)
        (self._group / "lun/lun_0/backstore").symlink_to(self._backstore)
        for attribute, value in _ATTRIBUTES.items():
            (self._group / "attrib" / attribute).write_text(str(value))
        (self._group / "np" / PORTAL).mkdir()
        (self._group / "enable").write_text("1")
        return self

    def __exit__(self, *exception: object) -> None:
        (self._group / "enable").write_text("0")
        (self._group / "np" / PORTAL).rmdir()
        (self._group / "lun/lun_0/backstore").unlink()
        (self._group / "lun/lun_0").rmdir()
        self._group.rmdir()
        self._target.rmdir()
