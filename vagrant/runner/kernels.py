"""Which installed kernel to boot. Looks at /boot and /lib/modules; knows neither QEMU nor packages."""

import re
from dataclasses import dataclass
from pathlib import Path

from vagrant.runner.errors import VmError

PREFERRED = "6.1"
"""The version of Debian 12's own kernel package, used when no other is asked for."""
IMAGE_NAME = "vmlinuz-"


@dataclass(frozen=True)
class Kernel:
    """An installed kernel: its release as `uname -r` prints it, and the image to boot."""

    release: str
    image: Path


def version_key(release: str) -> tuple[int, ...]:
    """Return the numbers in a release, so that 6.1.0-56 sorts after 6.1.0-9."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def matches(release: str, prefix: str) -> bool:
    """Tell whether a release starts with a version, number by number: 6.1 with 6.1.0-56, not with 6.12."""
    rest = release.removeprefix(prefix)
    return rest != release and not (rest[:1].isdigit() and prefix[-1:].isdigit())


def installed(root: Path = Path("/")) -> list[Kernel]:
    """Return the bootable kernels that have their modules, oldest first."""
    images = (root / "boot").glob(f"{IMAGE_NAME}*")
    kernels = (Kernel(image.name.removeprefix(IMAGE_NAME), image) for image in images)
    complete = (kernel for kernel in kernels if (root / "lib/modules" / kernel.release).is_dir())
    return sorted(complete, key=lambda kernel: version_key(kernel.release))


def choose(prefix: str | None, root: Path = Path("/")) -> Kernel:
    """Return the newest kernel whose version starts with `prefix`; by default a 6.1, else the newest."""
    kernels = installed(root)
    if not kernels:
        raise VmError(f"no kernel with modules in {root / 'boot'}: apt-get install linux-image-amd64")
    wanted = [kernel for kernel in kernels if matches(kernel.release, prefix or PREFERRED)]
    if prefix is not None and not wanted:
        found = ", ".join(kernel.release for kernel in kernels)
        raise VmError(f"no installed kernel has a version that starts with {prefix} (installed: {found})")
    return (wanted or kernels)[-1]
