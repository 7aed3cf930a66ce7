"""Fetching User-Mode Linux without root: apt downloads the package, which is unpacked in the user's cache.

A version that this machine's own suites do not have comes from another suite of the same archive, with that
suite's C library if this machine's is older.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vscsihba.errors import SandboxError
from vscsihba.sandbox import kernels, ptrace_library

PACKAGE: Final = "user-mode-linux"
SUITES: Final = MappingProxyType({"6.1": "bookworm", "6.12": "trixie"})
"""Debian's suite for each version."""
KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_LINES: Final = 3

Say = Callable[[str], None]


def fetch(version: str | None, say: Say, cache: Path | None = None) -> kernels.Kernel:
    """Download a kernel into the cache unless it is there, and return it.

    Args:
        version: Such as ``6.12``; None for the version of this machine's suites.
        say: Called with a text for each step.
        cache: The cache folder; the user's by default.

    Raises:
        SandboxError: It cannot be fetched; the message has apt's reason.
    """
    cache = cache or kernels.cache_folder()
    _need_programs()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as name:
            apt = _Apt(Path(name), say)
            if not _is_cached(version, cache):
                _bring_kernel(version, apt, cache)
            if ptrace_library.is_needed() and ptrace_library.compiler(cache) is None:
                apt.unpack(["tcc"], Path(name) / "tcc")
                _move(Path(name) / "tcc", cache / "tcc")
    except OSError as error:
        place = error.filename or cache
        raise SandboxError(f"{place}: {error.strerror}", cure="make room, or set XDG_CACHE_HOME") from error
    return kernels.choose(version, cache=cache)


def _is_cached(version: str | None, cache: Path) -> bool:
    nowhere = cache / ".none"
    try:
        kernels.choose(version, root=nowhere, cache=cache)
    except SandboxError:
        return False
    return True


def _bring_kernel(version: str | None, apt: "_Apt", cache: Path) -> None:
    if version is not None:
        suite = next((suite for known, suite in SUITES.items() if known == version), None)
        if suite is None:
            known = " and ".join(SUITES)
            raise SandboxError(f"Linux {version} cannot be fetched", cure=f"Debian has {known}")
        apt.use_suite(suite)
    root = apt.folder / "root"
    apt.unpack([PACKAGE], root)
    image = root / "usr/bin/linux.uml"
    (modules,) = (root / "usr/lib/uml/modules").iterdir()
    place = cache / modules.name
    if _needs_newer_libc(image):
        apt.unpack(["libc6", "libgcc-s1", "libstdc++6", "patchelf"], root / "libc")
        _take_libc(image, root, place)
    _move(root, place)


def _take_libc(image: Path, root: Path, place: Path) -> None:
    """Make a kernel use the C library of its own suite, which is beside it.

    Args:
        image: The kernel.
        root: Its folder now, with the C library in ``libc``.
        place: Its final folder.
    """
    loader = next(root.glob("libc/**/ld-linux-x86-64.so.2")).relative_to(root)
    libraries = next(root.glob("libc/**/libc.so.6")).parent.relative_to(root)
    # patchelf comes from the same suite, so it needs that C library too.
    patchelf = [
        str(root / loader),
        "--library-path",
        str(root / libraries),
        str(root / "libc/usr/bin/patchelf"),
    ]
    change = ["--set-interpreter", str(place / loader), "--set-rpath", str(place / libraries)]
    _run([*patchelf, *change, str(image)], "patchelf")


def _needs_newer_libc(image: Path) -> bool:
    done = subprocess.run([str(image), "--version"], capture_output=True, text=True, check=False)
    return done.returncode != 0 and "GLIBC_" in done.stderr


def _need_programs() -> None:
    for program, package in {"apt-get": "apt", "dpkg-deb": "dpkg"}.items():
        if shutil.which(program) is None:
            raise SandboxError(
                f"--fetch needs {program}, which only Debian and Ubuntu have (package {package})",
                cure="unpack Debian's user-mode-linux yourself, and name its linux.uml with --kernel",
            )


def _move(folder: Path, place: Path) -> None:
    """Move a complete folder into the cache, unless another process has done so meanwhile."""
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _run(command: Sequence[str], name: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-_LINES:]
        raise SandboxError(
            f"{name} failed: {' '.join(lines) or done.returncode}", cure="see that the archive is reachable"
        )
    return done.stdout


class _Apt:
    """apt with its own package lists, so that it needs no root and changes nothing on this machine."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder = folder
        self._say = say
        self._updated = False
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True)
        self._options = [
            *("-q", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"),
            *(
                "-o",
                "Acquire::Languages=none",
                "-o",
                "APT::Update::Error-Mode=any",
                "-o",
                "APT::Sandbox::User=",
            ),
        ]

    def use_suite(self, suite: str) -> None:
        """Use packages of a suite of Debian from now on, from the archive that this machine uses."""
        listed = _run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"], "apt-get indextargets"
        )
        archives = re.findall(r"^Debian (\S+/debian/?)$", listed, re.MULTILINE)
        mirror = os.environ.get("VM_MIRROR") or (archives[0] if archives else None)
        if mirror is None:
            raise SandboxError(
                f"this machine's package sources have no Debian archive to take {suite} from",
                cure="set VM_MIRROR to the address of one",
            )
        sources = self.folder / "sources.list"
        sources.write_text(f"deb [signed-by={KEYS}] {mirror} {suite} main\n")
        self._options += ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"]

    def unpack(self, packages: Sequence[str], root: Path) -> None:
        """Download packages and unpack them below a folder."""
        if not self._updated:
            self._say("reading package lists")
            _run(["apt-get", *self._options, "update"], "apt-get update")
            self._updated = True
        self._say(f"downloading {' '.join(packages)}")
        place = self.folder / "packages"
        for file in place.iterdir():
            file.unlink()
        self._download(packages, place)
        for file in sorted(place.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(file), str(root)], "dpkg-deb")

    def _download(self, packages: Sequence[str], place: Path) -> None:
        done = subprocess.run(
            ["apt-get", *self._options, "download", *packages],
            cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()[-_LINES:]
            raise SandboxError(f"apt-get download failed: {' '.join(lines)}")
