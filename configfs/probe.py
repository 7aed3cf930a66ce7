"""Checks of this machine's prerequisites for virtual disks: root, configfs, kernel modules, directories.

Each check repairs what it can (loads a module, mounts configfs, creates a directory), and otherwise raises an
error with the cure. Knows nothing of backstores and HBAs.
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
    """The check of one prerequisite.

    Attributes:
        title: Its name in a table.
        run: Checks and repairs; returns the result as a text, raises `HostError` with the cure.
    """

    title: str
    run: Callable[[], str]


def prepare() -> None:
    """Run all `CHECKS` in order.

    Raises:
        HostError: The first prerequisite that is missing and cannot be repaired.
    """
    for check in CHECKS:
        check.run()


def check_root() -> str:
    """Check that this process runs as root.

    Raises:
        HostError: It does not.
    """
    if os.geteuid() != 0:
        raise HostError("only root can create virtual disks", cure="run it with sudo")
    return "running as root"


def check_configfs() -> str:
    """Check that configfs is mounted, and mount it if it is not.

    Raises:
        HostError: The kernel does not have it, or it cannot be mounted.
    """
    if not paths.CONFIGFS.is_dir():
        load_module("configfs")
    if not paths.CONFIGFS.is_mount():
        _run(["mount", "-t", "configfs", "configfs", str(paths.CONFIGFS)], "mount configfs")
    return f"mounted on {paths.CONFIGFS}"


def check_modules() -> str:
    """Check that the target core, TCMU, tcm_loop and the disk driver are loaded, and load them if not.

    Raises:
        HostError: The running kernel lacks one of them.
    """
    for module in ("target_core_mod", "target_core_user", "tcm_loop", "sd_mod"):
        load_module(module)
    if not (paths.CONFIGFS / "target").is_dir():
        raise HostError(f"the kernel shows no {paths.CONFIGFS / 'target'}", cure="see dmesg")
    return f"target_core_user and tcm_loop are loaded in kernel {os.uname().release}"


def prepare_iscsi() -> None:
    """Load the kernel's iSCSI target unless it is loaded.

    Raises:
        HostError: The running kernel lacks it.
    """
    load_module("iscsi_target_mod")
    (paths.CONFIGFS / "target" / "iscsi").mkdir(exist_ok=True)


def check_generic() -> str:
    """Load the sg driver, so that SCSI devices get a ``/dev/sgN``.

    Disks work without it, so a kernel without the driver is not an error.
    """
    try:
        load_module("sg")
    except HostError:
        return f"kernel {os.uname().release} has no sg: there will be no /dev/sgN"
    return "sg is loaded"


def check_reservations() -> str:
    """Create ``<dbroot>/pr``, in which the kernel saves persistent reservations (APTPL).

    Raises:
        HostError: The directory cannot be created.
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
    """Load a kernel module unless it is loaded.

    Raises:
        HostError: The running kernel does not have it, or refuses it.
    """
    if not _is_loaded(module):
        _modprobe(module)


def look_for_module(module: str) -> str:
    """Return the state of a kernel module, "loaded" or "can be loaded", and change nothing.

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
    """Load a module with modprobe, which also knows built-in modules without a directory in /sys.

    Raises:
        HostError: modprobe is missing, or fails.
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
    """Return the cure for a missing module on this distribution (os-release(5))."""
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
"""The package with the target modules, for each family of distributions."""


def _run(command: list[str], doing: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostError(f"cannot {doing}: there is no program {command[0]}", cure="install it") from error
    if done.returncode:
        raise HostError(f"cannot {doing}: {done.stderr.strip()}")
