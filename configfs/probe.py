"""Probing: does this machine have what virtual disks need, and can it be brought about?

Each check brings about what it can (loads a module, mounts configfs, makes a directory) and
otherwise raises one line with the cure. Knows nothing of backstores and HBAs.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vscsihba.configfs import paths
from vscsihba.errors import HostError


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is needed.

    Attributes:
        title: What it is about, for a table.
        run: Sees to it; returns what it found, raises `HostError` with the cure.
    """

    title: str
    run: Callable[[], str]


def prepare() -> None:
    """Make this machine ready, in the order of `CHECKS`.

    Raises:
        HostError: Something is missing that cannot be brought about; the first such thing.
    """
    for check in CHECKS:
        check.run()


def check_root() -> str:
    """See that we may make disks.

    Raises:
        HostError: We are not root.
    """
    if os.geteuid() != 0:
        raise HostError("only root can make virtual disks", cure="run it with sudo")
    return "running as root"


def check_configfs() -> str:
    """See that configfs is mounted; mount it where it is not.

    Raises:
        HostError: The kernel has none, or it cannot be mounted.
    """
    if not paths.CONFIGFS.is_dir():
        load_module("configfs")
    if not paths.CONFIGFS.is_mount():
        _run(["mount", "-t", "configfs", "configfs", str(paths.CONFIGFS)], "mount configfs")
    return f"mounted on {paths.CONFIGFS}"


def check_modules() -> str:
    """See that the kernel has its target core, TCMU, tcm_loop and the disk driver; load them.

    Raises:
        HostError: The running kernel lacks one of them.
    """
    for module in ("target_core_mod", "target_core_user", "tcm_loop", "sd_mod"):
        load_module(module)
    if not (paths.CONFIGFS / "target").is_dir():
        raise HostError(f"the kernel shows no {paths.CONFIGFS / 'target'}", cure="see dmesg")
    return f"target_core_user and tcm_loop are loaded in kernel {os.uname().release}"


def check_generic() -> str:
    """See that SCSI devices get a ``/dev/sgN`` (sg), where the kernel has the driver.

    Disks work without it, so a kernel without it is not an error.
    """
    try:
        load_module("sg")
    except HostError:
        return f"kernel {os.uname().release} has no sg: there will be no /dev/sgN"
    return "sg is loaded"


def check_reservations() -> str:
    """See that the kernel can save persistent reservations (APTPL): that ``<dbroot>/pr`` exists.

    Raises:
        HostError: It cannot be made.
    """
    dbroot = paths.read(paths.CONFIGFS / "target" / "dbroot") or "/var/target"
    directory = Path(dbroot) / "pr"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {directory} for persistent reservations: {error.strerror}") from error
    return f"persistent reservations are saved in {directory}"


CHECKS = (
    Check("root", check_root),
    Check("configfs", check_configfs),
    Check("kernel modules", check_modules),
    Check("generic nodes", check_generic),
    Check("reservations", check_reservations),
)
"""All checks, each of which needs the ones before it."""


def load_module(module: str) -> None:
    """Load a kernel module unless it is there.

    Raises:
        HostError: The running kernel does not have it, or refuses it.
    """
    if not _is_loaded(module):
        _modprobe(module)


def look_for_module(module: str) -> str:
    """Return what a kernel module is, "loaded" or "can be loaded", and change nothing.

    Raises:
        HostError: The running kernel does not have it.
    """
    if _is_loaded(module):
        return "loaded"
    _modprobe(module, "--dry-run")
    return "can be loaded"


def _is_loaded(module: str) -> bool:
    return (paths.SYSFS / "module" / module).is_dir()


def _modprobe(module: str, *options: str) -> None:
    """Have modprobe load a module; it knows of parts that are built in, which may have no directory in /sys.

    Raises:
        HostError: It is not there, or does not do it.
    """
    program = shutil.which("modprobe", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise HostError(f"cannot load the kernel module {module}: there is no modprobe", cure="install kmod")
    done = subprocess.run([program, *options, module], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _missing(module, done.stderr.strip().rpartition("modprobe: ")[2])


def _missing(module: str, reason: str) -> HostError:
    release = os.uname().release
    if not (paths.MODULES / release).is_dir():
        return HostError(
            f"the running kernel {release} cannot load {module}: {paths.MODULES / release} does not exist",
            cure=f"reboot into the installed kernel, or {_package()}",
        )
    if "not found" not in reason:
        return HostError(f"the running kernel {release} refuses to load {module}: {reason}", cure="see dmesg")
    return HostError(f"the running kernel {release} has no module {module}", cure=_package())


def _package() -> str:
    """Return how to get a kernel with all modules on this distribution (os-release(5))."""
    words: dict[str, str] = {}
    for line in (paths.read(paths.ETC / "os-release") or "").splitlines():
        key, _, value = line.partition("=")
        words[key] = value.strip("\"'")
    family = [words.get("ID", ""), *words.get("ID_LIKE", "").split()]
    for name, cure in _PACKAGES.items():
        if name in family:
            return cure.format(release=os.uname().release)
    return "install and boot the distribution's standard kernel with all its modules"


_PACKAGES = {
    "ubuntu": "install linux-modules-extra-{release}, or linux-image-generic and reboot",
    "debian": "install linux-image-amd64 (not the cloud kernel) and reboot into it",
    "fedora": "install kernel-modules-{release}, or kernel and reboot",
    "rhel": "install kernel-modules-extra-{release}",
    "suse": "install kernel-default and reboot into it",
    "arch": "install linux and reboot into it",
}
"""Where each family of distributions keeps the target modules."""


def _run(command: list[str], doing: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostError(f"cannot {doing}: there is no program {command[0]}", cure="install it") from error
    if done.returncode:
        raise HostError(f"cannot {doing}: {done.stderr.strip()}")
