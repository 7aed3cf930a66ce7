"""Checks of the machine: rights, kernel, packages. They change nothing."""

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from vscsihba.cli.doctor.finding import Finding, finding_of
from vscsihba.configfs import paths, probe
from vscsihba.engine.descriptors import luns_within
from vscsihba.errors import HostError
from vscsihba.handlers.encrypt import libcrypto

_MODULES: Final = ("target_core_mod", "target_core_user", "tcm_loop", "sd_mod")

_PACKAGES: Final = ("rtslib-fb", "configshell-fb", "pyudev", "msgspec", "rich")

_OPTIONAL: Final = {
    "cryptography": "the handler encrypt needs it on a machine without libcrypto: install "
    "python3-cryptography, or vscsihba[encrypt]",
    "rbd": "the handler rbd needs it: install python3-rbd",
    "rados": "the handler rbd needs it: install python3-rados",
    "argon2-cffi": "the handler encrypt needs it for LUKS2: install python3-argon2, or vscsihba[encrypt]",
    "pycurl": "the handler http needs it: install python3-pycurl, or vscsihba[http]",
    "prometheus-client": "vscsihba metrics needs it: install python3-prometheus-client, or vscsihba[metrics]",
}
"""Packages that only some handlers or commands need."""

_OPTIONAL_MODULES: Final = {"nbd": ("libnbd", "the handlers nbd and qemu need it: install python3-libnbd")}
"""Modules that only some handlers need and whose packages have no metadata: their package, and the cure."""

_PROGRAMS: Final = {
    "qemu-storage-daemon": "the handler qemu needs it: install qemu-system-common",
    "qemu-img": "the handler qemu needs it: install qemu-utils",
    "qemu-nbd": "the handler qemu needs it for internal snapshots: install qemu-utils",
}
"""Programs that only some handlers need."""

_FEW: Final = 1000
"""LUNs of one engine that a machine should allow."""

RUN: Final = Path("/run/vscsihba")
STATE: Final = Path("/var/lib/vscsihba")
SAVED: Final = Path("/etc/vscsihba")


def check_rights() -> Iterator[Finding]:
    """Yield findings about root, folders and the limit of open files."""
    yield finding_of("rights", probe.check_root)
    for folder in (RUN, STATE, SAVED):
        yield finding_of(f"folder {folder}", partial(_folder, folder))
    yield _open_files()


def check_kernel() -> Iterator[Finding]:
    """Yield findings about kernel modules, configfs and udev."""
    modules = finding_of("modules", _modules)
    yield modules
    generic = finding_of("module sg", partial(probe.look_for_module, "sg"))
    if generic.state == "ok":
        yield generic
    elif modules.state == "ok":
        yield Finding(generic.title, "warning", f"{generic.text}: disks will have no /dev/sgN", generic.cure)
    yield finding_of("configfs", _configfs)
    yield _udev()


def check_packages() -> Iterator[Finding]:
    """Yield the versions of Python, Linux and packages."""
    yield Finding("Python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    yield Finding("Linux", "ok", os.uname().release)
    for package in ("vscsihba", *_PACKAGES):
        yield finding_of(package, partial(_version, package))
    for package, cure in _OPTIONAL.items():
        finding = finding_of(package, partial(_version, package))
        yield finding if finding.state == "ok" else Finding(package, "note", "not installed", cure)
    for module, (package, cure) in _OPTIONAL_MODULES.items():
        if find_spec(module) is not None:
            yield Finding(package, "ok", "installed")
        else:
            yield Finding(package, "note", "not installed", cure)
    yield _libcrypto()
    for program, cure in _PROGRAMS.items():
        path = shutil.which(program)
        yield Finding(program, "ok", path) if path else Finding(program, "note", "not installed", cure)


def _libcrypto() -> Finding:
    library = libcrypto.library()
    if library is not None:
        return Finding("libcrypto", "ok", library.name)
    cure = "the handler encrypt is slow without it: install libssl3"
    return Finding("libcrypto", "note", "not installed, or without AES-XTS", cure)


def _open_files() -> Finding:
    """Return the number of LUNs that the hard limit of open files allows; programs raise the soft limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    luns = luns_within(hard)
    text = f"{hard:,} (hard limit), enough for about {luns:,} LUNs in each engine"
    if luns >= _FEW:
        return Finding("open files", "ok", text)
    return Finding(
        "open files", "warning", text, 'raise the hard limit: "ulimit -Hn", LimitNOFILE= of the unit'
    )


def _folder(folder: Path) -> str:
    """Return the state of a folder; a missing one is created when it is needed."""
    if not folder.exists():
        return "does not exist yet"
    if not folder.is_dir():
        raise HostError(f"{folder} is not a directory", cure="remove it")
    if folder.stat().st_mode & 0o022:
        raise HostError(f"{folder} is writable for others than its owner", cure=f"chmod go-w {folder}")
    if os.geteuid() == 0 and not os.access(folder, os.W_OK):
        raise HostError(f"{folder} is not writable", cure="check how its file system is mounted")
    return "exists"


def _modules() -> str:
    """Return the states of the required modules; the first missing one raises."""
    modules = {module: probe.look_for_module(module) for module in _MODULES}
    return ", ".join(f"{module} {how}" for module, how in modules.items())


def _configfs() -> str:
    if paths.CONFIGFS.is_mount():
        return f"mounted on {paths.CONFIGFS}"
    probe.look_for_module("configfs")
    return f"not mounted yet; the service will mount it on {paths.CONFIGFS}"


def _udev() -> Finding:
    if paths.UDEV_CONTROL.exists():
        return Finding("udev", "ok", "running")
    return Finding(
        "udev", "warning", "not running: disks will have no names in /dev/disk/by-id", "start udev"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise HostError(f"{package} is not installed", cure=f"pip install {package}") from error
