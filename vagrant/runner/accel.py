"""KVM or software emulation: KVM is used only if a guest really boots with it.

The answer is cached until the host reboots. Does not know how to boot a guest: the caller passes a probe.
"""

import os
from collections.abc import Callable
from pathlib import Path

from vagrant.runner.errors import VmError

CHOICES = ("auto", "kvm", "tcg")
PROBE_LIMIT = 60.0
"""Seconds for a guest to boot with KVM; it takes far less."""


def cache_folder() -> Path:
    """Return the folder of files that are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vscsihba"


def unusable(root: Path = Path("/")) -> str | None:
    """Return the reason why KVM cannot work here, None if none is found without a boot."""
    if (root / "sys/module/kvm_pvm").exists():
        return "kvm_pvm does not boot stock kernels"
    if not os.access(root / "dev/kvm", os.R_OK | os.W_OK):
        return "no access to /dev/kvm"
    return None


def remembered(cache: Path, key: str) -> bool | None:
    """Return the cached answer for `key` (boot id and kernel), None if there is none."""
    try:
        kept_key, _, answer = cache.read_text().strip().rpartition(" ")
    except OSError:
        return None
    return answer == "yes" if kept_key == key else None


def remember(cache: Path, key: str, *, answer: bool) -> None:
    """Cache an answer."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(f"{key} {'yes' if answer else 'no'}\n")


def choose(
    wanted: str, release: str, probe: Callable[[], bool], cache: Path | None = None, root: Path = Path("/")
) -> str:
    """Return `kvm` or `tcg` for a kernel's release; `probe` returns whether a guest boots with KVM."""
    if wanted == "tcg":
        return "tcg"
    reason = unusable(root)
    if reason is None and not _boots(release, probe, cache or cache_folder() / "kvm", root):
        reason = f"a guest with KVM did not boot within {PROBE_LIMIT:.0f} s"
    if reason is None:
        return "kvm"
    if wanted == "kvm":
        raise VmError(f"KVM is not usable: {reason}")
    return "tcg"


def _boots(release: str, probe: Callable[[], bool], cache: Path, root: Path) -> bool:
    key = f"{(root / 'proc/sys/kernel/random/boot_id').read_text().strip()} {release}"
    answer = remembered(cache, key)
    if answer is None:
        answer = probe()
        remember(cache, key, answer=answer)
    return answer
