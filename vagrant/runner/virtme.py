"""The command line of virtme-run for one machine. Starts nothing, and reads no file."""

import sys
from dataclasses import dataclass
from pathlib import Path

from vagrant.runner import tsc
from vagrant.runner.kernels import Kernel
from vagrant.runner.workdir import WorkDir

HERE = Path(__file__).resolve().parent
GUEST = HERE.parent / "guest"
QBOOT = Path("/usr/share/qemu/qboot.rom")
"""A firmware that only starts kernels, half a second faster than SeaBIOS under software emulation."""
EMULATED_CPU = "max,-erms,-fsrm"
"""All features that QEMU emulates, except the flags for a fast ``rep movsb``, which the kernel would use:
emulated, it copies a byte at a time. Large reads take half as long without it."""
GUEST_SHARE = "/run/vm-share"
"""The path of WorkDir.share in the guest (guest/enter.sh)."""


@dataclass(frozen=True)
class Machine:
    """The guest to boot."""

    kernel: Kernel
    accel: str
    """`kvm` or `tcg`."""
    cpus: int = 2
    memory: str = "2G"
    unpacked: Path | None = None
    """The uncompressed kernel, if there is one; virtme-ng still reads the image."""
    plain: bool = False
    """A guest as QEMU and the kernel make it, for comparison: none of the settings for speed."""


def kernel_options(machine: Machine) -> list[str]:
    """Return kernel parameters: our programs first in init's PATH, and less work under emulation."""
    path = f"{GUEST / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
    if machine.plain:
        return [f"PATH={path}"]
    clock = tsc.clock_options() if machine.accel == "tcg" else []
    return [f"PATH={path}", "mitigations=off", "nowatchdog", "audit=0", *clock]


def qemu_options(machine: Machine, work: WorkDir) -> list[str]:
    """Return QEMU options that virtme-run does not have: the cached root and the scratch disk."""
    options = [
        *("-pidfile", str(work.pidfile)),
        *("-fsdev", "local,id=hostroot,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=hostroot,mount_tag=hostroot"),
        *("-drive", f"if=none,id=scratch,format=raw,cache=unsafe,discard=unmap,file={work.scratch}"),
        *("-device", "virtio-blk-pci,drive=scratch,serial=scratch"),
    ]
    if machine.unpacked is not None:
        options += ["-kernel", str(machine.unpacked)]
    if machine.plain:
        options += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    elif machine.accel == "tcg":
        options += ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]
        options += ["-bios", str(QBOOT)] if QBOOT.exists() else []
    return options


def console_options(work: WorkDir) -> tuple[list[str], list[str]]:
    """Return kernel and QEMU options that write the kernel's warnings and last messages to the console log.

    virtme-run drops them when it runs a script; with a shell it shows them itself.
    """
    device = ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=messages"]
    return ["console=hvc0", "loglevel=5"], ["-chardev", f"file,id=messages,path={work.console}", *device]


def command_line(machine: Machine, work: WorkDir, results: Path | None, *, interactive: bool) -> list[str]:
    """Return the argument list that boots `machine`, runs guest/enter.sh in it and powers it off."""
    enter = str(GUEST / "enter.sh")
    virtme_run = str(Path(sys.executable).parent / "virtme-run")
    kernel, qemu = kernel_options(machine), qemu_options(machine, work)
    if interactive:
        job = ["--shell", enter]
    else:
        job = ["--script-sh", f"exec {enter}"]
        kernel, qemu = (
            first + more for first, more in zip((kernel, qemu), console_options(work), strict=True)
        )
    shares = {GUEST_SHARE: work.share, f"{GUEST_SHARE}/results": results}
    return [
        *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, virtme_run),
        *("--kimg", str(machine.kernel.image), "--mods", "auto"),
        *("--force-9p", "--qemu-bin", str(HERE / "qemu")),
        *("--name", "vscsihba-vm", "--cpus", str(machine.cpus), "--memory", machine.memory),
        *(["--disable-kvm"] if machine.accel == "tcg" else []),
        *(f"--rwdir={inside}={outside}" for inside, outside in shares.items() if outside is not None),
        *(f"--kopt={option}" for option in kernel),
        *job,
        *("--qemu-opts", *qemu),
    ]
