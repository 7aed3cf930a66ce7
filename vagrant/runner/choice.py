"""The choice of the machine that runs a command: QEMU with KVM, the sandbox, or QEMU without KVM.

KVM is the fastest; the sandbox takes a quarter of the processor time of an emulated guest. Knows the limits
of each of them, and starts none: the caller passes the probe for KVM.
"""

from collections.abc import Callable
from typing import Final

from vagrant.runner.errors import VmError
from vscsihba.errors import SandboxError
from vscsihba.sandbox import fetch, kernels

CHOICES: Final = ("auto", "kvm", "sandbox", "tcg")


def choose(wanted: str, version: str | None, cpus: int, kvm: Callable[[], bool]) -> str:
    """Return ``kvm``, ``sandbox`` or ``tcg``.

    Args:
        wanted: One of `CHOICES`.
        version: Version of the kernel; None for any.
        cpus: Required virtual CPUs.
        kvm: Returns whether a guest boots with KVM here.

    Raises:
        VmError: The sandbox is wanted, and does not work here.
    """
    if wanted in ("kvm", "tcg"):
        return wanted
    if wanted == "auto" and kvm():
        return "kvm"
    reason = no_sandbox(version, cpus)
    if wanted == "sandbox" and reason is not None:
        raise VmError(f"no sandbox: {reason}")
    return "tcg" if reason is not None else "sandbox"


def no_sandbox(version: str | None, cpus: int) -> str | None:
    """Return the reason why the sandbox cannot be used, None if it can."""
    if cpus > 1:
        return "it has one processor"
    try:
        kernels.choose(version)
    except SandboxError as error:
        return None if version in fetch.SUITES else str(error)
    return None
