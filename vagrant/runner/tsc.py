"""The rate of this processor's time stamp counter, for emulated guests: QEMU passes the counter through.

All other clocks of such a guest are emulated devices: reading one is a system call and takes 10 us. The
kernel would measure the counter's rate against one of them, and on a busy machine be wrong now and then by
a factor of ten. With the rate as a parameter, it does not measure.
"""

import ctypes
import mmap
import platform
import sys
import time
from collections.abc import Callable
from typing import Final

_RDTSC: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret."""
_SPAN: Final = 0.2
"""Seconds to measure for."""
_TRIES: Final = 5


def clock_options() -> list[str]:
    """Return kernel parameters for an emulated guest: use the time stamp counter, at this rate.

    Without them the kernel does not trust an emulated counter. On other processors QEMU's counter has no rate
    that could be measured here, so there are no parameters.
    """
    if platform.machine() != "x86_64":
        return []
    return ["tsc=reliable", f"tsc_early_khz={measure()}"]


def measure() -> int:
    """Measure the rate of the counter in kHz against the monotonic clock."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(_RDTSC)
        start = ctypes.c_char.from_buffer(code)
        counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
        try:
            nanoseconds, ticks = _both(counter)
            time.sleep(_SPAN)
            later, more = _both(counter)
        finally:
            del start
    return round((more - ticks) * 1_000_000 / (later - nanoseconds))


def _both(counter: Callable[[], int]) -> tuple[int, int]:
    """Read the clock and the counter with the shortest time between the two."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        ticks = counter()
        took = time.monotonic_ns() - before
        if best is None or took < best[0]:
            best = took, before + took // 2, ticks
    assert best is not None  # noqa: S101 - _TRIES is above 0
    return best[1], best[2]


if __name__ == "__main__":
    sys.stdout.write(" ".join(clock_options()))
