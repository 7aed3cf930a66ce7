"""User-Mode Linux on this machine: the installed package, one in the user's cache, or a file by its path.

Debian's package ``user-mode-linux`` has ``usr/bin/linux.uml`` and ``usr/lib/uml/modules/VERSION``. Only
looks for files; `fetch` downloads a package into the cache.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vscsihba.errors import SandboxError

PREFERRED = "6.1"
"""The default version if there are several."""
MODULE = "kernel/drivers/target/target_core_user.ko"
CURE = 'install it (apt-get install user-mode-linux), or run "vscsihba sandbox --fetch", which needs no root'


@dataclass(frozen=True, slots=True)
class Kernel:
    """A User-Mode Linux with its modules.

    Attributes:
        release: As ``uname -r`` prints it.
        image: The program.
        modules: The folder with ``modules.dep``.
    """

    release: str
    image: Path
    modules: Path


def cache_folder() -> Path:
    """Return the folder in the user's cache that holds fetched kernels, one folder a version."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vscsihba" / "user-mode-linux"


def choose(wanted: str | None = None, root: Path = Path("/"), cache: Path | None = None) -> Kernel:
    """Return the kernel for a run.

    Args:
        wanted: A version (``6.12``) or the path of a kernel; None prefers 6.1, then the newest.
        root: Where packages are installed.
        cache: Where `fetch` puts kernels; the user's cache by default.

    Raises:
        SandboxError: There is no kernel, or it lacks the modules.
    """
    if wanted is not None and "/" in wanted:
        return _named(Path(wanted))
    kernels = installed(root, cache)
    if not kernels:
        raise SandboxError("User-Mode Linux is not on this machine", cure=CURE)
    matching = [kernel for kernel in kernels if _matches(kernel.release, wanted or PREFERRED)]
    if wanted is not None and not matching:
        there = ", ".join(kernel.release for kernel in kernels)
        fetch = f'run "vscsihba sandbox --fetch --kernel {wanted}"'
        raise SandboxError(f"no User-Mode Linux of version {wanted} here, only {there}", cure=fetch)
    return (matching or kernels)[-1]


def installed(root: Path = Path("/"), cache: Path | None = None) -> list[Kernel]:
    """Return the complete kernels of this machine, oldest version first, installed ones after cached ones."""
    fetched = sorted((cache or cache_folder()).glob("[0-9]*"))
    complete = [kernel for folder in (*fetched, root) for kernel in _complete(folder)]
    return sorted(complete, key=lambda kernel: _numbers(kernel.release))


def _complete(folder: Path) -> list[Kernel]:
    image = folder / "usr/bin/linux.uml"
    if not os.access(image, os.X_OK):
        return []
    modules = (folder / "usr/lib/uml/modules").glob("[0-9]*")
    return [Kernel(path.name, image, path) for path in modules if (path / MODULE).exists()]


def _named(image: Path) -> Kernel:
    """Return a kernel by its path; its modules are in the package's folder, or beside it."""
    if not os.access(image, os.X_OK) or not image.is_file():
        raise SandboxError(
            f"{image} is not an executable", cure="name a User-Mode Linux kernel, such as linux.uml"
        )
    image = image.absolute()
    places = (image.parents[1] / "lib/uml/modules", image.parent / "modules", image.parent / "lib/modules")
    for folder in (path for place in places for path in sorted(place.glob("[0-9]*"), reverse=True)):
        if (folder / MODULE).exists():
            return Kernel(folder.name, image, folder)
    raise SandboxError(
        f"no modules with {MODULE} beside {image}", cure=f"put them into {places[0]}, or use the package"
    )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


def _matches(release: str, version: str) -> bool:
    """Return whether a release belongs to a version, compared by number: 6.1.176 to 6.1, not to 6.12."""
    wanted = _numbers(version)
    return _numbers(release)[: len(wanted)] == wanted
