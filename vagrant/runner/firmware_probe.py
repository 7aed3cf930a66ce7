"""A probe of KVM that needs only QEMU: its firmware starts one boot sector.

For machines without a kernel to boot, as for a Vagrant box. As a program it prints `kvm` or `tcg`, for the
Vagrantfile. A kernel then boots too, except on the hosts that `accel` knows.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from vagrant.runner import accel

LIMIT = 20.0
"""Seconds for the sector to run; with KVM it takes less than one."""
EXIT_PORT, EXIT_VALUE = 0xF4, 0x10
# mov al, EXIT_VALUE; out EXIT_PORT, al; hlt; jmp back to the hlt; the mark of a boot sector.
SECTOR = bytes([0xB0, EXIT_VALUE, 0xE6, EXIT_PORT, 0xF4, 0xEB, 0xFD]).ljust(510, b"\0") + b"\x55\xaa"
EXIT_CODE = EXIT_VALUE << 1 | 1
"""QEMU's exit code for that value (isa-debug-exit)."""


def boots(accelerator: str = "kvm", limit: float = LIMIT) -> bool:
    """Boot the sector and return whether it ran within `limit` seconds."""
    with tempfile.NamedTemporaryFile(prefix="vscsihba-boot-") as disk:
        disk.write(SECTOR)
        disk.flush()
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("qemu-system-x86_64", "-accel", accelerator, "-m", "32", "-nodefaults", "-no-reboot"),
            *("-display", "none", "-drive", f"if=floppy,format=raw,readonly=on,file={disk.name}"),
            *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"),
        ]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False
            )
        except (subprocess.TimeoutExpired, OSError):
            return False
        return done.returncode == EXIT_CODE


def main(cache: Path | None = None, root: Path = Path("/")) -> str:
    """Return `kvm` or `tcg` for this machine; the answer is cached until the machine reboots."""
    return accel.choose("auto", "firmware", boots, cache or accel.cache_folder() / "kvm-firmware", root)


if __name__ == "__main__":
    sys.stdout.write(main())
