"""The library that is preloaded into User-Mode Linux: its build, and whether this machine needs it.

ptrace.c explains its purpose. It is compiled once into the user's cache. Without a C compiler, the sandbox
runs without it unless the processor needs it.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from vscsihba.errors import SandboxError
from vscsihba.sandbox.kernels import cache_folder

SOURCE: Final = Path(__file__).resolve().with_name("ptrace.c")
COMPILERS: Final = ("cc", "gcc", "clang", "tcc")
_FLAGS: Final = ("-shared", "-fPIC", "-nostdlib")


def is_needed(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this processor has a register state that User-Mode Linux may not know: AMX."""
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return "amx_tile" in line.split()
    return False


def compiler(cache: Path | None = None) -> str | None:
    """Return a C compiler: one on the path, or the one that `fetch` has put into the cache."""
    fetched = (cache or cache_folder()) / "tcc/usr/bin/tcc"
    for name in COMPILERS:
        if (program := shutil.which(name)) is not None:
            return program
    return str(fetched) if fetched.exists() else None


def library(cache: Path | None = None) -> Path | None:
    """Return the compiled library, built if it is not in the cache yet; None if it is not needed.

    Raises:
        SandboxError: This processor needs it, and there is no C compiler, or it fails.
    """
    cache = cache or cache_folder()
    made = cache / f"ptrace-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if made.exists():
        return made
    program = compiler(cache)
    if program is None and not is_needed():
        return None
    if program is None:
        raise SandboxError(
            "on this processor (AMX), User-Mode Linux needs a library, and there is no C compiler to make it",
            cure='install one (apt-get install gcc), or run "vscsihba sandbox --fetch"',
        )
    private = made.with_suffix(f".{os.getpid()}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [program, *_FLAGS, "-o", str(private), str(SOURCE)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SandboxError(f"{program} failed: {done.stderr.strip()}", cure="install another C compiler")
        private.rename(made)
    except OSError as error:
        raise SandboxError(
            f"{made}: {error.strerror}", cure="make the folder writable, or set XDG_CACHE_HOME"
        ) from error
    return made
