"""The choice of the kernel to boot: an installed one, or one that vagrant/fetch-kernel has downloaded.

Reads boot/ and lib/modules/; knows neither QEMU nor packages. As a program it prints the release that it
would choose for a version.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vagrant.runner.accel import cache_folder
from vagrant.runner.errors import NOT_RUN, VmError

PREFERRED = "6.1"
"""The version of Debian 12's own kernel package, the default."""
IMAGE_NAME = "vmlinuz-"
FETCH = Path(__file__).resolve().parents[1] / "fetch-kernel"
"""The program that downloads a kernel of a given version into the cache."""


@dataclass(frozen=True)
class Kernel:
    """A kernel: its release as `uname -r` prints it, and the image to boot."""

    release: str
    image: Path


def version_key(release: str) -> tuple[int, ...]:
    """Return the numbers in a release, so that 6.1.0-56 sorts after 6.1.0-9."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def matches(release: str, prefix: str) -> bool:
    """Return whether a release belongs to a version, compared by number: 6.1.0-56 to 6.1, not to 6.12."""
    rest = release.removeprefix(prefix)
    return rest != release and not (rest[:1].isdigit() and prefix[-1:].isdigit())


def complete(root: Path) -> list[Kernel]:
    """Return the bootable kernels below a root folder that have their modules."""
    images = (root / "boot").glob(f"{IMAGE_NAME}*")
    kernels = (Kernel(image.name.removeprefix(IMAGE_NAME), image) for image in images)
    return [kernel for kernel in kernels if (root / "lib/modules" / kernel.release).is_dir()]


def installed(root: Path = Path("/"), cache: Path | None = None) -> list[Kernel]:
    """Return the complete kernels of this machine, oldest first, installed ones after cached ones."""
    fetched = sorted(((cache or cache_folder()) / "kernels").glob("[0-9]*"))
    kernels = [kernel for folder in (*fetched, root) for kernel in complete(folder)]
    return sorted(kernels, key=lambda kernel: version_key(kernel.release))


def choose(prefix: str | None, root: Path = Path("/"), cache: Path | None = None) -> Kernel:
    """Return the newest kernel whose version starts with `prefix`; by default a 6.1, else the newest."""
    kernels = installed(root, cache)
    if not kernels:
        raise VmError(f"no kernel with modules in {root / 'boot'}: apt-get install linux-image-amd64")
    wanted = [kernel for kernel in kernels if matches(kernel.release, prefix or PREFERRED)]
    if prefix is not None and not wanted:
        found = ", ".join(kernel.release for kernel in kernels)
        raise VmError(f"no installed kernel has a version that starts with {prefix} (installed: {found})")
    return (wanted or kernels)[-1]


def fetch(prefix: str, program: Path = FETCH) -> None:
    """Bring the newest kernel of a version into the cache; VmError says why that is not to be had."""
    done = subprocess.run(
        [program, prefix], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise VmError(done.stderr.strip())


if __name__ == "__main__":
    try:
        print(choose(sys.argv[1]).release)  # noqa: T201 - a program's output
    except VmError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_RUN)
