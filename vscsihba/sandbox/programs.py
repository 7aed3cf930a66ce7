"""The programs of this machine that the start of the guest needs, and their packages.

These are the programs that guest/*.sh calls, without coreutils. Only looks for files.
"""

import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vscsihba.errors import SandboxError

PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin:/lib/systemd"
"""The path of init.sh, and the folder in which it looks for udev's daemon."""
NEEDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "kmod": "kmod",
        "modprobe": "kmod",
        "mount": "mount",
        "umount": "mount",
        "mountpoint": "util-linux",
        "pivot_root": "util-linux",
        "systemd-udevd": "udev",
        "udevadm": "udev",
    }
)
"""Debian's package of each program."""


def check_programs(path: str = PATH) -> None:
    """Check that every program exists that the start of the guest needs.

    Args:
        path: The folders to search, separated by colons.

    Raises:
        SandboxError: Some are missing; the cure names their packages.
    """
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        packages = dict.fromkeys(NEEDED[name] for name in missing)
        raise SandboxError(
            f"the sandbox needs {' and '.join(missing)}", cure=f"apt-get install {' '.join(packages)}"
        )
