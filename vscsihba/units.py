"""Units: sizes as text, numbers of things as text, and types for LBAs and numbers of blocks.

An LBA and a byte offset are both integers; with the NewTypes a type checker finds a mix-up.
"""

import re
from typing import Final, NewType

from vscsihba.errors import UsageError

Lba = NewType("Lba", int)
"""A logical block address."""
Blocks = NewType("Blocks", int)
"""A number of logical blocks."""

_FACTORS: dict[str, int] = {"": 1, "B": 1}
for _power, _prefix in enumerate("KMGTPE", start=1):
    _FACTORS[_prefix] = _FACTORS[f"{_prefix}iB"] = 1 << 10 * _power
    _FACTORS[f"{_prefix}B"] = 1000**_power

_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Return the size in bytes of a text: ``"10GiB"``, ``"512M"``, ``"1.5TiB"``, ``"4096"``.

    A lone letter is binary (``M`` is MiB), as in ``truncate(1)`` and ``lvcreate(8)``.

    Raises:
        UsageError: `text` is not a size, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _FACTORS.get(_canonical(match[2])) if match else None
    if match is None or factor is None:
        raise UsageError(f"{text!r} is not a size", cure='write it like "512M", "10GiB" or "4096"')
    whole, _, fraction = match[1].partition(".")
    size, rest = divmod(int(whole + fraction) * factor, int("1" + "0" * len(fraction)))
    if rest:
        raise UsageError(f"{text!r} is not a whole number of bytes", cure="round it")
    return size


def _canonical(suffix: str) -> str:
    """Fold the case of a suffix: ``gib`` -> ``GiB``, ``mb`` -> ``MB``."""
    return suffix.upper().replace("IB", "iB")


def format_size(size: int) -> str:
    """Return `size` bytes as text for people: ``"64.0 MiB"``, ``"512 B"``."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 6)
    scaled = size / 1024**power
    if scaled >= 1023.95 and power < 6:  # would be printed as 1024.0
        power += 1
        scaled /= 1024
    return f"{scaled:.1f} {'KMGTPE'[power - 1]}iB"


_TIMES: Final = (
    (1e9, "ns", 0, 999.5),
    *(
        (scale, unit, digits, most)
        for scale, unit in ((1e6, "us"), (1e3, "ms"), (1, "s"))
        for digits, most in ((2, 9.995), (1, 99.95), (0, 999.5))
    ),
)
"""Factor, unit, decimals, and the value from which on it would have more than three digits."""


def format_seconds(seconds: float) -> str:
    """Return a short time with three digits and its unit: ``850 ns``, ``12.3 us``, ``4.05 ms``."""
    small = (
        (f"{seconds * scale:.{digits}f} {unit}", seconds * scale, most)
        for scale, unit, digits, most in _TIMES
    )
    return next((text for text, value, most in small if value < most), f"{seconds:.0f} s")


def counted(count: int, noun: str) -> str:
    """Return a number of things as text: ``"1 LUN"``, ``"2 LUNs"``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def exact_size(size: int) -> str | int:
    """Return `size` bytes for a document, in the largest unit without a fraction.

    ``parse_size`` reverses it: ``"10GiB"``, ``"1536MiB"``. A size that is no multiple of KiB is a number.
    """
    power = next((power for power in range(6, 0, -1) if size and size % 1024**power == 0), 0)
    return f"{size // 1024**power}{'KMGTPE'[power - 1]}iB" if power else size
