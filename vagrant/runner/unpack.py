"""Unpacking of an installed kernel on the host, which saves two seconds under software emulation.

QEMU starts an uncompressed kernel at its PVH entry. A kernel that is not packed with xz (as Debian does) or
has no such entry is booted as it is. Knows nothing of the rest of the command line.
"""

import lzma
import os
from pathlib import Path

from vagrant.runner.kernels import Kernel

XZ_MAGIC = b"\xfd7zXZ\x00"
ELF_MAGIC = b"\x7fELF"
PVH_NOTE = b"\x12\x00\x00\x00Xen\x00"
"""The type (XEN_ELFNOTE_PHYS32_ENTRY) and owner of the ELF note that holds the entry's address."""


def unpack(packed: bytes) -> bytes | None:
    """Return the uncompressed kernel inside a bzImage, None if QEMU cannot start it."""
    start = packed.find(XZ_MAGIC)
    if start < 0:
        return None
    try:
        kernel = lzma.LZMADecompressor().decompress(packed[start:])
    except lzma.LZMAError:
        return None
    return kernel if kernel.startswith(ELF_MAGIC) and PVH_NOTE in kernel else None


def unpacked(kernel: Kernel, cache: Path) -> Path | None:
    """Return the file with the uncompressed kernel, created if it is not in the folder `cache` yet."""
    status = kernel.image.stat()
    path = cache / f"vmlinux-{kernel.release}-{status.st_mtime_ns:x}"
    if path.exists():
        return path
    content = unpack(kernel.image.read_bytes())
    if content is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for older in cache.glob(f"vmlinux-{kernel.release}-*"):
            older.unlink(missing_ok=True)
        private = path.with_suffix(f".{os.getpid()}")
        private.write_bytes(content)
        private.rename(path)
    except OSError:
        return None
    return path
