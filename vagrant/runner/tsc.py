"""How fast this processor's time stamp counter runs, for emulated guests: QEMU hands it to them as it is.

All other clocks of such a guest are devices: a look at one is a system call and takes 10 us. The kernel
would find out the counter's rate by one of them, and on a busy machine is wrong by far once in a while,
so that its seconds pass in tenths. Told the rate, it need not.
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
    """Return kernel parameters for an emulated guest: read the time from the processor, at this rate.

    The kernel would not, for an emulated counter promises no steady rate, and QEMU's on other processors
    has none that could be measured here: no parameters then.
    """
    if platform.machine() != "x86_64":
        return []
    return ["tsc=reliable", f"tsc_early_khz={measure()}"]


def measure() -> int:
    """Return the rate of the counter in kHz, by the monotonic clock."""
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
    """Read the clock and the counter, with as little between the two as can be had."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        ticks = counter()
        took = time.monotonic_ns() - before
        if best is None or took < best[0]:
            best = took, before + took // 2, ticks
    assert best is not None  # noqa: S101 - there was a try
    return best[1], best[2]


if __name__ == "__main__":
    sys.stdout.write(" ".join(clock_options()))
