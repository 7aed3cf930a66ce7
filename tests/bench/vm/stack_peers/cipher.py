"""Throughput of AES-256-XTS in this boot: of the kernel, which dm-crypt uses, and of OpenSSL.

The two depend on the machine in different ways: the kernel of User-Mode Linux has no assembler code for AES.
"""

import os
import re
import time
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.bench.vm.peers import run

_LENGTH: Final = 64 << 10
_SECONDS: Final = 0.5
_SLACK: Final = 15


def measure() -> dict[str, Any]:
    """Return MiB/s of both, and the name of the kernel's driver."""
    for module in ("xts", "algif_skcipher"):
        run("modprobe", module)
    output = run("cryptsetup", "benchmark", "--cipher", "aes-xts", "--key-size", "512")
    found = re.search(r"512b\s+([\d.]+) MiB/s", output)
    if found is None:
        raise AssertionError(f"cryptsetup benchmark: {output}")
    return {"kernel": float(found[1]), "driver": _driver(), "openssl": _openssl()}


def _driver() -> str:
    """Return the kernel's preferred driver of xts(aes)."""
    drivers: list[tuple[int, str]] = []
    for entry in Path("/proc/crypto").read_text().split("\n\n"):
        pairs = (line.partition(":") for line in entry.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if fields.get("name") == "xts(aes)":
            drivers.append((int(fields["priority"]), fields["driver"]))
    return max(drivers)[1] if drivers else ""


def _openssl() -> float:
    encryptor = Cipher(algorithms.AES(os.urandom(64)), modes.XTS(bytes(16))).encryptor()
    data, out = bytes(_LENGTH), cast(bytes, bytearray(_LENGTH + _SLACK))  # its stubs name bytes only
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + _SECONDS:
        encryptor.update_into(data, out)
        count += 1
    return count * _LENGTH / (now - start) / (1 << 20)
